"""The messages of notices in the five formats, their signatures, and what the answers mean.

- json: the payload and the headers of Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks.
- slack: incoming webhooks, https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.
- dingtalk: custom robots, https://open.dingtalk.com/document/robots/custom-robot-access.
- feishu: custom bots, https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot.
- wecom: group robots, https://developer.work.weixin.qq.com/document/path/91770.

Names of jobs, reports and branches come from CI. Every format but json shows them as plain text (no Markdown), with
their @ replaced, so that they can neither mention anyone nor hide an address behind a text.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

from bridge.domain.instants import SECOND, Instant
from bridge.domain.notices import Notice, NoticeLine, more_of
from bridge.domain.text_format import clause_or_unknown, rfc3339
from bridge.protocols.http_response import HttpResponse, clean_of, describe_error, read_object, retry_after_seconds
from bridge.values import dataclass


class NoticeFormat(StrEnum):
    """The formats; the values of `notices.format`."""

    JSON = "json"
    SLACK = "slack"
    FEISHU = "feishu"
    DINGTALK = "dingtalk"
    WECOM = "wecom"


SIGNED: Final = frozenset({NoticeFormat.JSON, NoticeFormat.FEISHU, NoticeFormat.DINGTALK})
"""Formats with a signature. Slack and WeCom have none: who has the URL may send."""

MAX_BYTES: Final = {
    NoticeFormat.SLACK: 12_000,  # of at most 40,000 characters; a section has at most 3,000
    NoticeFormat.FEISHU: 16_000,  # the whole request: 20 KB
    NoticeFormat.DINGTALK: 16_000,  # the whole request: 20,000 bytes
    NoticeFormat.WECOM: 2_048,  # the content of a text message
}
"""Of the text of a message, in UTF-8."""

MAX_TITLE_BYTES: Final = 400
MAX_MORE_BYTES: Final = 40
MIN_LINE_BYTES: Final = 100
"""A line that would be cut to less is left out."""

SLACK_HEADER: Final = 150
SLACK_SECTION: Final = 3_000
"""Characters of a header and a section, https://docs.slack.dev/reference/block-kit/blocks."""

SUCCESS: Final = 2
REDIRECTION: Final = 3
"""Classes of HTTP statuses."""

WHSEC: Final = "whsec_"
"""What comes before the base64 of a Standard Webhooks secret."""

THROTTLED: Final = {
    NoticeFormat.DINGTALK: {130101: 600.0, 410100: 600.0},  # a robot that sends more than 20 a minute rests 10 minutes
    NoticeFormat.WECOM: {45009: 60.0, 45033: 10.0},
    NoticeFormat.FEISHU: {11232: 60.0, 9499: 60.0},
}
"""Seconds to wait for each code of the answer that means "too many"; every other failure is retried sooner."""

EXPLAINED: Final = {
    (NoticeFormat.DINGTALK, 310000): "the robot's security settings reject it: set secret, or use the keyword bridge",
    (NoticeFormat.FEISHU, 19021): "the bot's signature check rejects it: set secret, and compare the clocks",
    (NoticeFormat.FEISHU, 19022): "the bot's list of addresses rejects this machine",
    (NoticeFormat.FEISHU, 19024): "the bot requires a keyword: use bridge",
    (NoticeFormat.WECOM, 93000): "the key in the URL is not valid",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeRequest:
    """A POST: its URL with what a signature adds, headers and body."""

    url: str = field(repr=False)
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeArrived:
    """The target took the notice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeRejected:
    """The target did not take the notice; `retry_after_seconds` is how long it is to be left alone."""

    message: str
    retry_after_seconds: float | None = None


# -- requests ----------------------------------------------------------------------------------------------------


def to_request(format_: NoticeFormat, notice: Notice, *, url: str, secret: str, now: Instant) -> NoticeRequest:
    """Return the request that sends `notice`, signed with `secret` if that is not empty and the format has signatures.

    `now` is the time of this machine: receivers reject signatures that are some minutes (json) or an hour old.
    """
    match format_:
        case NoticeFormat.JSON:
            return _json_request(notice, url, secret, now)
        case NoticeFormat.SLACK:
            content = _slack(notice)
        case NoticeFormat.FEISHU:
            content = _feishu(notice) | (_feishu_signature(secret, now) if secret else {})
        case NoticeFormat.DINGTALK:
            content = {"msgtype": "text", "text": {"content": _plain_text(notice, format_)}, "at": {"isAtAll": False}}
            url = _with_dingtalk_signature(url, secret, now) if secret else url
        case NoticeFormat.WECOM:
            content = {"msgtype": "text", "text": {"content": _plain_text(notice, format_)}}
    return NoticeRequest(url=url, headers={"Content-Type": "application/json; charset=utf-8"}, body=_encode(content))


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _json_request(notice: Notice, url: str, secret: str, now: Instant) -> NoticeRequest:
    events = [
        {
            "at": rfc3339(line.detail.at),
            "text": line.text,
            "job_id": line.detail.job_id or None,
            "build_no": line.detail.build_no,
            "count": line.detail.count,
            "url": line.url or None,
        }
        for line in notice.lines
    ]
    data = {
        "event": notice.kind,
        "route": notice.route or None,
        "title": notice.title,
        "count": notice.count,
        "first_at": rfc3339(notice.first_at),
        "last_at": rfc3339(notice.last_at),
        "events": events,
    }
    body = _encode({"type": f"bridge.{notice.kind}", "timestamp": rfc3339(notice.last_at), "data": data})
    headers = {"Content-Type": "application/json", "webhook-id": notice.id, "webhook-timestamp": str(now // SECOND)}
    if secret:
        signed = f"{notice.id}.{now // SECOND}.".encode() + body
        headers["webhook-signature"] = f"v1,{_hmac(webhook_key(secret), signed)}"
    return NoticeRequest(url=url, headers=headers, body=body)


def webhook_key(secret: str) -> bytes:
    """Return the key of a Standard Webhooks secret: the base64 after `whsec_`, or the text itself without that.

    Raise ValueError if the base64 is none.
    """
    if secret.startswith(WHSEC):
        return base64.b64decode(secret.removeprefix(WHSEC), validate=True)
    return secret.encode()


def _hmac(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.digest(key, message, "sha256")).decode("ascii")


def _with_dingtalk_signature(url: str, secret: str, now: Instant) -> str:
    """Return the URL with `timestamp` (milliseconds) and `sign`, the HMAC of both lines with the secret as the key."""
    timestamp = str(now // 1000)
    sign = _hmac(secret.encode(), f"{timestamp}\n{secret}".encode())
    return f"{url}{'&' if '?' in url else '?'}timestamp={timestamp}&sign={quote(sign, safe='')}"


def _feishu_signature(secret: str, now: Instant) -> dict[str, str]:
    """Return `timestamp` (seconds) and `sign`, the HMAC of nothing with both lines as the key."""
    timestamp = str(now // SECOND)
    return {"timestamp": timestamp, "sign": _hmac(f"{timestamp}\n{secret}".encode(), b"")}


# -- texts -------------------------------------------------------------------------------------------------------


def inert(text: str) -> str:
    """Return text that mentions no one: @ as its full-width form, on one line."""
    return " ".join(text.replace("@", "\N{FULLWIDTH COMMERCIAL AT}").split())


def cut(text: str, max_bytes: int) -> str:
    """Return the beginning of `text` that has at most `max_bytes` in UTF-8, with an ellipsis if it was cut."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max(0, max_bytes - 3)].decode("utf-8", "ignore") + "…"


def _plain_text(notice: Notice, format_: NoticeFormat) -> str:
    """Return title, lines and the count of the others as one text of the permitted size."""
    notice = _inert(notice)
    limit = MAX_BYTES[format_]
    while True:
        lines = [f"{line.text}{f' {line.url}' if line.url else ''}" for line in notice.lines]
        text = "\n".join(filter(None, (notice.title, *lines, more_of(notice.more))))
        if len(text.encode("utf-8", "backslashreplace")) <= limit or not notice.lines:
            return cut(text, limit)
        notice = _shorter(notice, limit)


def _inert(notice: Notice) -> Notice:
    lines = tuple(replace(line, text=inert(line.text)) for line in notice.lines)
    return replace(notice, title=cut(inert(notice.title), MAX_TITLE_BYTES), lines=lines)


def _shorter(notice: Notice, limit: int) -> Notice:
    """Return the notice with one line less; if it has only one, with that cut, or without it."""
    *kept, last = notice.lines
    room = limit - MAX_TITLE_BYTES - MAX_MORE_BYTES - len(last.url.encode())
    if not kept and MIN_LINE_BYTES < room < len(last.text.encode("utf-8", "backslashreplace")):
        return replace(notice, lines=(replace(last, text=cut(last.text, room)),))
    return replace(notice, lines=tuple(kept), more=notice.more + last.detail.count)


def _slack(notice: Notice) -> dict[str, Any]:
    """Return a header and sections of plain text, in which Slack reads no mrkdwn; the link alone is mrkdwn."""
    notice = _inert(notice)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _slack_plain(notice.title[:SLACK_HEADER])}]
    for line in notice.lines:
        blocks.append({"type": "section", "text": _slack_plain(line.text[:SLACK_SECTION])})
        if line.url:
            link = {"type": "mrkdwn", "text": f"<{slack_escape(line.url.replace('|', '%7C'))}|{_link_text(line)}>"}
            blocks.append({"type": "context", "elements": [link]})
    if notice.more:
        blocks.append({"type": "context", "elements": [_slack_plain(more_of(notice.more))]})
    first = notice.lines[0].text if notice.lines else ""
    fallback = slack_escape(cut(f"{notice.title}: {first}", SLACK_SECTION))
    return {"text": fallback, "blocks": blocks}


def _slack_plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text or "-", "emoji": False}


def slack_escape(text: str) -> str:
    """Return text without the three characters that begin links, mentions and entities in Slack's mrkdwn."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _link_text(line: NoticeLine) -> str:
    return "Open the build" if line.detail.job_id else "Open"


def _feishu(notice: Notice) -> dict[str, Any]:
    """Return a post, whose elements of tag `text` are shown as they are."""
    notice = _inert(notice)
    budget = MAX_BYTES[NoticeFormat.FEISHU]
    while True:
        rows: list[list[dict[str, str]]] = []
        for line in notice.lines:
            link = [{"tag": "a", "text": f" {_link_text(line)}", "href": line.url}] if line.url else []
            rows.append([{"tag": "text", "text": line.text}, *link])
        if notice.more:
            rows.append([{"tag": "text", "text": more_of(notice.more)}])
        post = {"title": notice.title, "content": rows or [[{"tag": "text", "text": "-"}]]}
        content = {"msg_type": "post", "content": {"post": {"en_us": post, "zh_cn": post}}}
        if len(_encode(content)) <= budget or not notice.lines:
            return content
        notice = _shorter(notice, budget // 2)


# -- answers -----------------------------------------------------------------------------------------------------


def read_answer(format_: NoticeFormat, response: HttpResponse) -> NoticeArrived | NoticeRejected:
    """Return what the answer to a notice means.

    DingTalk, WeCom and Feishu answer failures with 200 and a code in the body, so the body decides there.
    """
    pause = retry_after_seconds(response)
    status_class = response.status // 100
    if status_class == REDIRECTION:
        return NoticeRejected(message=f"It answered with a redirect (HTTP {response.status}), which is not followed.")
    body = read_object(response.body)
    if format_ in (NoticeFormat.JSON, NoticeFormat.SLACK):
        if status_class == SUCCESS:
            return NoticeArrived()
        text = response.body[:200].decode("utf-8", "replace") if format_ is NoticeFormat.SLACK else ""
        reason = clean_of(response, text) if text else ""
        return _rejected(f"HTTP {response.status}{f': {clause_or_unknown(reason)}' if reason else ''}", pause)
    code, message = _code_of(format_, body)
    if code == 0 and status_class == SUCCESS:
        return NoticeArrived()
    if code is None:
        return _rejected(f"HTTP {response.status} without a code in the answer", pause)
    reason = EXPLAINED.get((format_, code)) or clause_or_unknown(describe_error(response, message))
    throttled = THROTTLED[format_].get(code)
    if throttled is not None:
        pause = max(throttled, pause or 0)
    return _rejected(f"code {code}: {reason}", pause)


def _code_of(format_: NoticeFormat, body: Mapping[str, Any]) -> tuple[int | None, object]:
    names = (
        (("code", "msg"), ("StatusCode", "StatusMessage"))
        if format_ is NoticeFormat.FEISHU
        else (("errcode", "errmsg"),)
    )
    for code_name, message_name in names:
        code = body.get(code_name)
        if isinstance(code, int) and not isinstance(code, bool):
            return code, body.get(message_name)
    return None, None


def _rejected(reason: str, pause: float | None) -> NoticeRejected:
    return NoticeRejected(message=f"It rejected the notice ({reason}).", retry_after_seconds=pause)
