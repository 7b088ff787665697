"""The formats of notices: what text of CI may not do in them, and how they are cut and signed."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from urllib.parse import quote

import pytest

from bridge.domain.instants import HOUR, SECOND, Instant
from bridge.domain.notices import EventDetail, Notice, NoticeLine
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.notices import (
    NoticeArrived,
    NoticeFormat,
    NoticeRejected,
    cut,
    read_answer,
    slack_escape,
    to_request,
    webhook_key,
)

NOW = Instant(500_000 * HOUR)
URL = "https://chat.example/send?key=canary"
CHATS = [each for each in NoticeFormat if each is not NoticeFormat.JSON]
NASTY = [
    "@all",
    "@所有人 @everyone @channel",
    "<!channel> <!here|x>",
    "<@U012AB3CD>",
    "<@zhangsan>",
    '<at user_id="all">Everyone</at>',
    "[Open](https://evil.example)",
    "<https://evil.example|https://testnod.example>",
    '<font color="warning">x</font> **bold** # title',
    "line\n# title\r\n> quote",
    "`code` _it_ ~x~ &amp; &lt;",
    "\u202e\u200b\x1b[31m",
    "\ud800 lone",
]


def a_notice(*texts, title="bridge: 1 report given up", url="", more=0, **other):
    lines = tuple(
        NoticeLine(text=text, url=url, detail=EventDetail(at=NOW, text=text, job_id="job", build_no=1))
        for text in texts
    )
    values = {"id": "notice_1", "kind": "dead_delivery", "route": "shop", "title": title, "lines": lines, **other}
    return Notice(count=len(lines) + more, more=more, first_at=NOW, last_at=NOW, **values)


def content_of(format_, notice, secret=""):
    request = to_request(format_, notice, url=URL, secret=secret, now=NOW)
    return json.loads(request.body)


def strings(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("format_", CHATS)
def test_no_text_of_ci_mentions_anyone_or_hides_an_address(format_, nasty):
    content = content_of(format_, a_notice(f"Report {nasty} was given up.", title=f"bridge: {nasty}"))
    assert all("@" not in text for text in strings(content))
    match format_:
        case NoticeFormat.SLACK:
            assert not {"<", ">"} & set(content["text"])
            foreign = [block for block in content["blocks"] if block["type"] in ("header", "section")]
            assert all(block["text"]["type"] == "plain_text" for block in foreign)
            assert all(
                element["type"] == "plain_text" for block in content["blocks"] for element in block.get("elements", [])
            )
        case NoticeFormat.FEISHU:
            elements = [each for row in content["content"]["post"]["zh_cn"]["content"] for each in row]
            assert {element["tag"] for element in elements} == {"text"}
        case NoticeFormat.DINGTALK:
            assert content["msgtype"] == "text"
            assert content["at"] == {"isAtAll": False}
            assert len(content["text"]["content"].splitlines()) == 2
        case NoticeFormat.WECOM:
            assert content["msgtype"] == "text"
            assert content["text"].keys() == {"content"}
            assert len(content["text"]["content"].splitlines()) == 2


@pytest.mark.parametrize("format_", CHATS)
def test_the_link_is_the_only_address_that_is_made_a_link(format_):
    page = "http://console.example/builds/job/1"
    content = content_of(format_, a_notice("A report was given up.", url=page))
    assert any(page in text for text in strings(content))


@pytest.mark.parametrize("character", ["x", "é", "测", "😀", "&", "<"])
@pytest.mark.parametrize("format_", CHATS)
def test_messages_are_cut_between_characters_to_what_the_vendor_permits(format_, character):
    lines = [character * 600] * 5
    request = to_request(format_, a_notice(*lines, more=9_995), url=URL, secret="", now=NOW)
    content = json.loads(request.body)
    assert len(request.body) <= {NoticeFormat.SLACK: 40_000}.get(format_, 20_000)
    if format_ is NoticeFormat.WECOM:
        assert len(content["text"]["content"].encode()) <= 2_048
    texts = "".join(strings(content))
    assert "�" not in texts
    assert "more event" in texts
    assert character in texts.replace("&lt;", "<").replace("&amp;", "&")


def test_a_title_of_any_length_fits():
    for format_ in CHATS:
        to_request(format_, a_notice("x", title="t" * 100_000), url=URL, secret="", now=NOW)
        content = content_of(format_, a_notice("x", title="测" * 100_000))
        assert len(json.dumps(content, ensure_ascii=False).encode()) < 40_000


def test_cut_ends_between_characters():
    assert cut("abc", 3) == "abc"
    assert cut("测试测试", 8) == "测…"
    assert cut("a\ud800b", 100) == "a\ud800b"


def test_slack_escapes_its_three_characters():
    assert slack_escape("<a|b> & c") == "&lt;a|b&gt; &amp; c"


def test_a_link_of_slack_ends_where_its_address_does():
    blocks = content_of(NoticeFormat.SLACK, a_notice("x", url="http://console.example/a|b?c&d"))["blocks"]
    assert blocks[-1]["elements"][0]["text"] == "<http://console.example/a%7Cb?c&amp;d|Open the build>"


def test_a_json_notice_is_signed_as_standard_webhooks_describe_it():
    # The values of the specification's own test.
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert webhook_key(key) == base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert webhook_key("plain") == b"plain"
    request = to_request(NoticeFormat.JSON, a_notice("x"), url=URL, secret=key, now=NOW)
    signed = f"notice_1.{NOW // SECOND}.".encode() + request.body
    expected = base64.b64encode(hmac.new(webhook_key(key), signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert request.url == URL


def test_a_json_notice_has_texts_as_they_are():
    content = content_of(NoticeFormat.JSON, a_notice("@all <b>"))
    assert content["data"]["events"][0]["text"] == "@all <b>"
    assert content["timestamp"].endswith("Z")


def test_dingtalk_signs_in_the_url_with_milliseconds_and_percent_encoding():
    signs = ""
    for seconds in range(20):
        now = Instant(NOW + seconds * SECOND)
        request = to_request(NoticeFormat.DINGTALK, a_notice("x"), url=URL, secret="SECx", now=now)
        timestamp = str(now // 1000)
        digest = hmac.new(b"SECx", f"{timestamp}\nSECx".encode(), hashlib.sha256).digest()
        sign = base64.b64encode(digest).decode()
        assert request.url == f"{URL}&timestamp={timestamp}&sign={quote(sign, safe='')}"
        signs += sign
    assert {"+", "/", "="} <= set(signs)


def test_feishu_signs_in_the_body_with_seconds():
    content = content_of(NoticeFormat.FEISHU, a_notice("x"), secret="s")
    assert content["timestamp"] == str(NOW // SECOND)
    expected = hmac.new(f"{NOW // SECOND}\ns".encode(), b"", hashlib.sha256).digest()
    assert base64.b64decode(content["sign"]) == expected


def test_a_request_does_not_print_its_url():
    request = to_request(NoticeFormat.WECOM, a_notice("x"), url=URL, secret="", now=NOW)
    assert "canary" not in repr(request)


def an_answer(status=200, body=b"", headers=()):
    return HttpResponse(status=status, headers=dict(headers), body=body, received_at=0, secrets=("canary-key",))


@pytest.mark.parametrize(
    ("format_", "answer"),
    [
        ("json", an_answer(204)),
        ("json", an_answer(202, b"whatever")),
        ("slack", an_answer(200, b"ok")),
        ("feishu", an_answer(200, b'{"code":0,"msg":"success"}')),
        ("feishu", an_answer(200, b'{"StatusCode":0,"StatusMessage":"success"}')),
        ("dingtalk", an_answer(200, b'{"errcode":0,"errmsg":"ok"}')),
        ("wecom", an_answer(200, b'{"errcode":0,"errmsg":"ok"}')),
    ],
)
def test_these_answers_mean_that_a_notice_arrived(format_, answer):
    assert read_answer(NoticeFormat(format_), answer) == NoticeArrived()


@pytest.mark.parametrize(
    ("format_", "answer", "says", "pause"),
    [
        ("json", an_answer(500), "HTTP 500", None),
        ("json", an_answer(302), "redirect", None),
        ("json", an_answer(429, headers={"retry-after": "30"}.items()), "HTTP 429", 30.0),
        ("slack", an_answer(404, b"no_service"), "HTTP 404: no_service", None),
        ("slack", an_answer(403, b"canary-key is revoked"), "HTTP 403: … is revoked", None),
        ("feishu", an_answer(200, b'{"code":11232,"msg":"too many"}'), "code 11232: too many", 60.0),
        ("feishu", an_answer(200, b'{"code":19021,"msg":"x"}'), "signature check", None),
        ("feishu", an_answer(200, b'{"code":true}'), "without a code", None),
        ("dingtalk", an_answer(200, b'{"errcode":130101,"errmsg":"x"}'), "code 130101", 600.0),
        ("dingtalk", an_answer(200, b"<html>"), "without a code", None),
        ("wecom", an_answer(200, b'{"errcode":45009,"errmsg":"api freq"}'), "code 45009: api freq", 60.0),
        ("wecom", an_answer(200, b'{"errcode":45009}', {"retry-after": "90"}.items()), "code 45009", 90.0),
        ("wecom", an_answer(200, b'{"errcode":40008,"errmsg":"invalid message type"}'), "code 40008", None),
        ("wecom", an_answer(502, b'{"errcode":0}'), "code 0", None),
    ],
)
def test_these_answers_mean_that_it_did_not(format_, answer, says, pause):
    outcome = read_answer(NoticeFormat(format_), answer)
    assert isinstance(outcome, NoticeRejected)
    assert says in outcome.message
    assert outcome.retry_after_seconds == pause


def test_an_empty_notice_is_a_valid_message():
    for format_ in NoticeFormat:
        assert to_request(format_, replace(a_notice(), count=3, more=3), url=URL, secret="", now=NOW).body
