"""Routes that have reports repaired or elements left out: what is kept is what will be sent, and all of it is said."""

import hashlib

import pytest

from bridge.domain.junit.case_digest import read_digest
from bridge.server.upload.file_store import ROW_BYTES, TRANSFORM_INLINE_BYTES
from tests.support.labels import content_of
from tests.support.upload_server import (
    BOTH_JOB,
    GOOD,
    MAX_REPORT,
    NOT_JUNIT,
    REPAIR_JOB,
    REWRITE_JOB,
    STRIP_JOB,
    UploadServer,
    form,
)

SIZES = pytest.mark.parametrize(
    "cases", [1, TRANSFORM_INLINE_BYTES // 50, ROW_BYTES // 50], ids=["in place", "in a row", "in the spool"]
)
UTF_8 = '<?xml version="1.0" encoding="utf-8"?>'


def cases(count: int, text: str = "测试用户登录失败，订单已经退款") -> str:
    return "".join(f'<testcase name="a{number}">{text}</testcase>' for number in range(count))


def report(count: int, **text: str) -> bytes:
    return f"{UTF_8}<testsuite>{cases(count, **text)}</testsuite>".encode()


def chatty(count: int) -> bytes:
    properties = '<properties><property name="token" value="canary"/></properties>'
    return f"{UTF_8}<testsuite>{properties}{cases(count, '<system-out>canary</system-out>')}</testsuite>".encode()


def sent(server: UploadServer) -> bytes:
    """Return the bytes of the only report, once its row has been held against them."""
    [kept] = server.uploads[-1].reports
    content = kept.body if kept.blob is None else content_of(server.root / kept.blob)
    assert (kept.sent_size, kept.sent_sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert server.spooled == ([kept.blob] if kept.blob else [])
    return content


def changes(server: UploadServer) -> tuple[str, ...]:
    return server.uploads[-1].reports[0].changes


# -- repair ----------------------------------------------------------------------------------------------------------


@SIZES
async def test_a_report_in_another_encoding_than_it_says_is_sent_as_utf_8(server, send, cases):
    came = report(cases).decode().encode("gb18030")
    status, answer, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert status == 200
    assert sent(server) == report(cases)
    [kept] = server.uploads[0].reports
    assert (kept.size, kept.received_sha256) == (len(came), hashlib.sha256(came).hexdigest())
    assert kept.counts.tests == cases
    assert changes(server) == ("Its bytes are gb18030, not utf-8; it was converted to UTF-8.",)
    assert f"1 changed before it is sent: a.xml: {changes(server)[0]}" in answer["result"]


@SIZES
async def test_a_report_in_an_encoding_that_it_declares_is_transcoded(server, send, cases):
    came = report(cases).decode().replace("utf-8", "gbk").encode("gbk")
    status, _, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert (status, changes(server)) == (200, ("It was converted from gbk to UTF-8.",))
    assert sent(server).decode().endswith(report(cases).decode().removeprefix(UTF_8))


async def test_a_report_that_repair_makes_larger_than_a_report_may_be_is_rejected_as_too_large(server, send):
    came = report(1, text="测试" * 125_000).decode().replace("utf-8", "gbk").encode("gbk")
    assert len(came) < MAX_REPORT
    status, answer, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith(f"a.xml: as UTF-8 it is larger than {MAX_REPORT} bytes. ")
    assert server.spooled == server.blobs


@SIZES
async def test_colour_codes_and_control_characters_are_taken_out(server, send, cases):
    came = report(cases, text="\x1b[31mred\x1b[0m\x01")
    status, _, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert (status, sent(server)) == (200, report(cases, text="red"))
    assert changes(server) == (
        f"Color codes removed: {2 * cases}.",
        f"Characters that XML forbids removed: {cases}.",
    )


@SIZES
async def test_a_truncated_report_keeps_its_finished_cases(server, send, cases):
    came = report(cases).removesuffix(b"</testsuite>") + b'<testcase name="cut"><fail'
    status, answer, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert status == 200
    assert b"cut" not in sent(server)
    assert server.uploads[0].reports[0].counts.tests == cases
    assert "a.xml: The file ended too early and was closed; cases may be missing." in answer["result"]
    assert "cases may be missing" in changes(server)[0]


RED_TO_GREEN = ["x & y", "<![CDATA[x ]]> y & ]]>", '<a message="x>y" message="z"/>', "x &nbsp y", "<?php x>", "<!-- x"]


@pytest.mark.parametrize(
    "padding", [0, TRANSFORM_INLINE_BYTES, ROW_BYTES], ids=["in place", "in a row", "in the spool"]
)
@pytest.mark.parametrize("job_id", [None, REPAIR_JOB], ids=["as it is", "with repair"])
@pytest.mark.parametrize("content", RED_TO_GREEN)
async def test_no_fault_in_the_middle_makes_a_red_report_green(server, send, content, job_id, padding):
    passed, failed = '<testcase name="a"/>', '<testcase name="c"><failure/></testcase>'
    broken = f'<testcase name="b"><failure>{content}</failure></testcase>'
    came = f"<testsuite>{passed}\n{broken}{failed}{' ' * padding}</testsuite>".encode()
    status, answer, _ = await send(form(("a.xml", came)), **({"job_id": job_id} if job_id else {}))
    if status == 200:
        assert b"&amp;" in sent(server)
        counts = server.uploads[0].reports[0].counts
        assert (counts.tests, counts.failures) == (3, 2)
    else:
        assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
        assert answer["error_msg"].startswith("a.xml: line 2, column ")
        assert server.uploads[0].reports == ()


@pytest.mark.parametrize("came", [b"<testsuites time='0.015'>\n", b"<testsuite><testcase name='a'><failure>x"])
async def test_a_truncated_report_without_a_finished_case_is_rejected(server, send, came):
    status, answer, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith("a.xml: the file ends too early: ")
    assert server.uploads[0].reports == ()


@SIZES
async def test_a_sound_report_is_sent_as_it_came_and_nothing_is_said(server, send, cases):
    came = report(cases)
    status, answer, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert (status, answer["result"]) == (200, f"1 report, {cases} test{'s' * (cases > 1)}, 0 failed")
    assert (sent(server), changes(server)) == (came, ())


@pytest.mark.parametrize("size", [0, 200_000])
async def test_what_cannot_be_repaired_is_rejected_as_without_it(server, send, size):
    status, answer, _ = await send(form(("a.xml", NOT_JUNIT + b" " * size)), job_id=REPAIR_JOB)
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert "HTML" in answer["error_msg"]
    assert (server.uploads[0].reports, server.spooled) == ((), server.blobs)


@pytest.mark.parametrize(("job_id", "hint"), [(None, True), (REPAIR_JOB, False)], ids=["off", "on"])
async def test_a_wrong_encoding_names_the_setting_that_would_repair_it(send, job_id, hint):
    ambiguous = b"<testsuite><testcase name='\xc4\xe3'/></testsuite>"
    status, answer, _ = await send(form(("a.xml", ambiguous)), **({"job_id": job_id} if job_id else {}))
    assert (status, "declar" in answer["error_msg"]) == (400, True)
    assert answer["error_msg"].endswith(", or set repair = true on route shop.") == hint


async def test_what_was_repaired_is_said_also_where_another_file_is_rejected(server, send):
    coloured = report(1, text="\x1b[31mred")
    status, answer, _ = await send(form(("a.xml", coloured), ("b.xml", NOT_JUNIT)), job_id=REPAIR_JOB)
    assert status == 400
    assert "The other 1 report of this upload was accepted." in answer["error_msg"]
    assert "1 changed before it is sent: a.xml: Color codes removed: 1." in answer["error_msg"]
    assert len(server.uploads[0].reports) == 1


async def test_a_report_that_grows_too_large_for_its_row_goes_to_the_spool(server, send):
    quotes = b'"' * (TRANSFORM_INLINE_BYTES - 100)
    came = b"<testsuite name='" + quotes + b"'><testcase name='a'/><testca"
    status, _, _ = await send(form(("a.xml", came)), job_id=REPAIR_JOB)
    assert status == 200
    assert len(sent(server)) > ROW_BYTES
    assert server.uploads[0].reports[0].blob is not None


# -- strip -----------------------------------------------------------------------------------------------------------


@SIZES
async def test_elements_that_the_route_leaves_out_are_not_sent(server, send, cases):
    came = chatty(cases)
    status, answer, _ = await send(form(("a.xml", came)), job_id=STRIP_JOB)
    assert status == 200
    assert b"canary" not in sent(server)
    assert server.uploads[0].reports[0].received_sha256 == hashlib.sha256(came).hexdigest()
    assert changes(server) == (f"Left out: 1 properties, {cases} system-out.",)
    assert changes(server)[0] in answer["result"]


@SIZES
async def test_a_report_without_such_elements_is_sent_as_it_came(server, send, cases):
    status, _, _ = await send(form(("a.xml", report(cases))), job_id=STRIP_JOB)
    assert (status, sent(server), changes(server)) == (200, report(cases), ())


@SIZES
async def test_stripping_repairs_nothing(server, send, cases):
    status, _, _ = await send(form(("a.xml", chatty(cases)[:-3])), job_id=STRIP_JOB)
    assert (status, server.uploads[0].reports, server.spooled) == (400, (), server.blobs)


@SIZES
async def test_both_may_be_done_to_one_report(server, send, cases):
    came = chatty(cases).replace(b"</testsuite>", b"\x1b[0m")
    status, _, _ = await send(form(("a.xml", came)), job_id=BOTH_JOB)
    assert status == 200
    assert b"canary" not in sent(server)
    assert changes(server)[-1] == f"Left out: 1 properties, {cases} system-out."
    assert len(changes(server)) == 3


async def test_a_route_that_asks_for_neither_has_reports_sent_as_they_came(server, send):
    await send(form(("a.xml", GOOD)))
    assert (sent(server), changes(server)) == (GOOD, ())


# -- every report ----------------------------------------------------------------------------------------------------

DECLARED = {"Cp437": "größer", "ks_c_5601-1987": "로그인", "shift_jis": "a\\b テスト", "utf-32": "购物车"}


@SIZES
@pytest.mark.parametrize("encoding", DECLARED)
@pytest.mark.parametrize("job_id", [None, STRIP_JOB, REPAIR_JOB], ids=["as it is", "with strip", "with repair"])
async def test_an_encoding_that_other_parsers_lack_is_sent_as_utf_8_without_any_setting(
    server, send, cases, encoding, job_id
):
    text = {"text": DECLARED[encoding]}
    came = report(cases, **text).decode().replace("utf-8", encoding).encode(encoding)
    status, answer, _ = await send(form(("a.xml", came)), **({"job_id": job_id} if job_id else {}))
    assert status == 200
    assert sent(server) == report(cases, **text).replace(b"utf-8", b"UTF-8")
    assert changes(server) == (f"It was converted from {encoding.lower()} to UTF-8.",)
    [kept] = server.uploads[0].reports
    assert (kept.counts.tests, kept.received_sha256) == (cases, hashlib.sha256(came).hexdigest())
    assert f"a.xml: {changes(server)[0]}" in answer["result"]


@SIZES
async def test_references_to_the_halves_of_a_character_are_joined_without_any_setting(server, send, cases):
    came = report(cases, text="&#55357;&#xDE00;")
    status, _, _ = await send(form(("a.xml", came)))
    assert (status, sent(server)) == (200, report(cases, text="😀"))
    assert changes(server) == (f"References to the two halves of a character joined: {cases}.",)


@SIZES
async def test_halves_beside_another_fault_change_nothing(server, send, cases):
    came = report(cases, text="&#55357;&#xDE00;&#27;")
    status, answer, _ = await send(form(("a.xml", came)))
    assert (status, server.uploads[0].reports) == (400, ())
    assert "halves of one character" in answer["error_msg"]


@SIZES
@pytest.mark.parametrize("repaired", [False, True])
async def test_stray_bytes_are_named_and_repair_replaces_only_them(server, send, cases, repaired):
    came = report(cases).replace(b"</testsuite>", b"<system-out>\xff \xe6\xb5</system-out></testsuite>")
    status, answer, _ = await send(form(("a.xml", came)), **({"job_id": REPAIR_JOB} if repaired else {}))
    if repaired:
        assert (status, sent(server).decode()) == (200, came.decode(errors="replace"))
        assert changes(server) == ("Bytes that are not UTF-8 replaced by U+FFFD: 3.",)
    else:
        assert status == 400
        assert f"(byte offset {came.index(255)}) is not valid utf-8; 2 more of its bytes are not" in answer["error_msg"]
        assert answer["error_msg"].endswith(", or set repair = true on route shop.")


@SIZES
@pytest.mark.parametrize("repaired", [False, True])
async def test_text_before_the_report_is_named_and_repair_removes_it(server, send, cases, repaired):
    came = b"npm warn deprecated\n> test\n" + report(cases)
    status, answer, _ = await send(form(("a.xml", came)), **({"job_id": REPAIR_JOB} if repaired else {}))
    if repaired:
        assert (status, sent(server)) == (200, report(cases))
        assert changes(server) == ("Text before the report removed: 2 lines.",)
    else:
        found = 'a.xml: it begins with "npm warn deprecated"; the report itself begins at line 3.'
        assert (status, answer["error_msg"].startswith(found)) == (400, True)


# -- names -----------------------------------------------------------------------------------------------------------


@SIZES
async def test_names_are_rewritten_in_what_is_sent_and_the_received_digest_is_kept(server, send, cases):
    came = report(cases).replace(b'name="a', b'name="at 12:00:01 a').replace(b'">', b' at 12:00:01">')
    status, answer, _ = await send(form(("a.xml", came)), job_id=REWRITE_JOB)
    assert status == 200
    assert sent(server).lower() == came.replace(b' at 12:00:01">', b'">').replace(b"?>", b"?>\n").lower()
    [kept] = server.uploads[0].reports
    assert kept.received_sha256 == hashlib.sha256(came).hexdigest()
    assert changes(server) == (f"Names rewritten: {cases} by rule 1.",)
    assert changes(server)[0] in answer["result"]
    identities = [case.identity for case in read_digest(kept.case_digest).cases]
    assert identities == [f"\x1fat 12:00:01 a{number}" for number in range(cases)]
