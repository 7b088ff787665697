import asyncio
import re
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_protocol import RequestPayloadError
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

import bridge.server
from bridge.domain.build import UploadMetadata
from bridge.errors import BadParameter, TooLarge, Unavailable
from bridge.server.http.requests import (
    MAX_HOPS,
    Parameters,
    claimed_build,
    client_address,
    media_type,
    network_of,
    read_body,
    read_metadata,
    read_parameters,
    read_query,
    read_small_body,
    resembles_upload_path,
)
from tests.support.calls import calls_of

JOB = "0123456789abcdefabcdef0123456789"
GOOD = {"job_id": JOB, "build_no": "7", "node_id": "n-1"}


@pytest.mark.parametrize(("sent", "read"), [(JOB.upper(), JOB), ("Z" * 32, "Z" * 32)])
def test_hexadecimal_digits_in_capitals_are_the_same_job(sent, read):
    assert read_parameters(GOOD | {"job_id": sent}).job_id == read


def test_the_reference_pages_parameters_are_read():
    assert read_parameters(GOOD) == Parameters(job_id=JOB, build_no=7, node_id="n-1")


@pytest.mark.parametrize("query", [{"job_id": JOB, "build_no": "7"}, {**GOOD, "node_id": ""}])
def test_a_missing_node_is_taken_as_default(query):
    assert read_parameters(query).node_id == "default"


@pytest.mark.parametrize("build_no", ["1", "2147483647"])
def test_every_number_that_codearts_counts_to_is_taken(build_no):
    assert read_parameters({**GOOD, "build_no": build_no}).build_no == int(build_no)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("job_id", "", "job_id is missing"),
        ("job_id", "a" * 31, "not 32 digits and letters"),
        ("job_id", "a" * 33, "not 32 digits and letters"),
        ("job_id", "a" * 31 + "-", "not 32 digits and letters"),
        ("job_id", "٣" * 32, "not 32 digits and letters"),
        ("build_no", "", "INCREASENUM"),
        ("build_no", "20240626.1", 'build_no is "20240626.1", which is BUILDNUMBER. Use INCREASENUM'),
        ("build_no", "0", "not a whole number"),
        ("build_no", "2147483648", "not a whole number"),
        ("build_no", "-1", "not a whole number"),
        ("build_no", "1e3", "not a whole number"),
        ("build_no", "٣", "not a whole number"),
        ("build_no", "9" * 5000, "not a whole number"),
        ("node_id", "n" * 33, "not 1 to 32"),
        ("node_id", "a_b", "not 1 to 32"),
        ("job_id", "${JOB_ID}", r'job_id is "\$\{JOB_ID\}", a variable'),
        ("build_no", "$INCREASENUM", r'build_no is "\$INCREASENUM", a variable'),
        ("node_id", "${node}", "node_id is .* a variable"),
    ],
)
def test_a_bad_parameter_is_told_in_two_sentences(name, value, says):
    with pytest.raises(BadParameter, match=says) as caught:
        read_parameters({**GOOD, name: value})
    assert str(caught.value).count(". ") == 1
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["job_id", "build_no", "node_id", "branch", "complete"])
def test_two_values_under_one_name_are_rejected_with_the_question_which(name):
    with pytest.raises(BadParameter, match=f'{name} is given twice, as "a" and as "b". Send it once.'):
        read_query([(name, "a"), ("other", "x"), (name, "b")])


def test_the_same_said_twice_is_said_once_and_other_names_are_left_alone():
    pairs = [("build_no", "7"), ("build_no", " 7"), ("other", "x"), ("other", "y")]
    assert read_query(pairs) == {"build_no": "7"}


def test_the_query_comes_before_the_form():
    said, complete = read_metadata({"branch": "main", "complete": "true"}, {"branch": "other", "commit": "c0ffee"})
    assert said == UploadMetadata(branch="main", commit="c0ffee")
    assert complete


@pytest.mark.parametrize(("word", "complete"), [("true", True), ("TRUE", True), ("false", False), ("", False)])
def test_complete_is_true_or_false(word, complete):
    assert read_metadata({}, {"complete": word}) == (UploadMetadata(), complete)


def test_nothing_need_be_said():
    assert read_metadata({"job_id": JOB}, {}) == (UploadMetadata(), False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complete", "yes"),
        ("branch", "${codeBranch}"),
        ("commit", "x-${COMMIT}"),
        ("job_name", "$NAME"),
        ("branch", "b" * 1025),
        ("commit", "c0ffee\x00"),
        ("branch", "ma\ud800in"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(name, value):
    for query, form in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(BadParameter, match=name):
            read_metadata(query, form)


def test_a_dollar_inside_a_branch_is_a_name_like_any_other():
    assert read_metadata({"branch": "fix-$cost"}, {})[0].branch == "fix-$cost"


@given(st.dictionaries(st.sampled_from(["job_id", "build_no", "node_id", "branch", "complete"]), st.text()))
def test_any_text_is_read_or_refused(query):
    try:
        parameters = read_parameters(query)
        read_metadata(query, query)
    except BadParameter as error:
        assert str(error).isprintable()  # noqa: PT017 -- both outcomes are right
    else:
        assert 1 <= parameters.build_no < 2**31


@pytest.fixture
async def content():
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 2**16, loop=loop)


async def read(content: StreamReader, *, max_bytes: int = 100, stall_seconds: float = 30) -> list[bytes]:
    return [piece async for piece in read_body(content, max_bytes=max_bytes, stall_seconds=stall_seconds)]


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_body_within_the_limit_is_read_whole(content, size):
    content.feed_data(b"x" * size)
    content.feed_eof()
    assert b"".join(await read(content)) == b"x" * size


async def test_a_body_is_cut_as_soon_as_it_is_over_the_limit(content):
    content.feed_data(b"x" * 101)  # and there is no end of it
    with pytest.raises(TooLarge, match="larger than 100 bytes"):
        await read(content)


async def test_a_note_is_whole_or_too_large_with_its_own_remedy(content):
    content.feed_data(b"12")
    content.feed_data(b"3" * 100)
    content.feed_eof()
    with pytest.raises(TooLarge, match=r"^The body is larger than 100 bytes\. Send less\.$"):
        await read_small_body(content, max_bytes=100, remedy="Send less.")


@pytest.mark.parametrize("fed", [b"", b"x" * 50])
async def test_a_body_that_stalls_is_given_up_and_may_come_again(content, fed):
    content.feed_data(fed)
    with pytest.raises(Unavailable, match="too slowly"):
        await read(content, stall_seconds=0.01)


async def test_a_body_that_drips_is_given_up_though_each_wait_is_short(content):
    async def drip() -> None:
        for _ in range(1000):
            content.feed_data(b"x")
            await asyncio.sleep(0.002)
        content.feed_eof()

    dripping = asyncio.create_task(drip())
    with pytest.raises(Unavailable, match="too slowly"):
        await read(content, max_bytes=10**9, stall_seconds=0.5)
    assert not dripping.done()
    dripping.cancel()


async def test_a_body_that_comes_for_too_long_is_given_up_however_fast_it_is(content):
    async def pour() -> None:
        for _ in range(1000):
            content.feed_data(b"x" * 10_000)
            await asyncio.sleep(0.002)
        content.feed_eof()

    pouring = asyncio.create_task(pour())
    with pytest.raises(Unavailable, match="too slowly"):
        async for _ in read_body(content, max_bytes=10**9, max_seconds=0.1):
            pass
    assert not pouring.done()
    pouring.cancel()


@pytest.mark.parametrize("broken", [TransferEncodingError("x"), RequestPayloadError("x")])
async def test_broken_framing_is_the_callers_fault(content, broken):
    content.set_exception(broken)
    with pytest.raises(BadParameter, match="framing"):
        await read(content)


async def test_a_client_that_went_away_is_told_as_such(content):
    content.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await read(content)


OURS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.7, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.7", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, " + ", ".join(["10.0.0.2"] * MAX_HOPS)], "10.0.0.2"),
    ],
    ids=[
        "a stranger may write what he likes",
        "no header",
        "one client",
        "what the client wrote himself",
        "the same in two lines",
        "two proxies of ours",
        "a client within",
        "nothing readable",
        "with a port",
        "IPv6",
        "IPv4 in IPv6",
        "empty",
        "too long a way",
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_vouches_for(peer, forwarded_for, address):
    assert client_address(peer, forwarded_for, OURS) == address


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"job_id": JOB, "build_no": "7", "node_id": "a_b"}, (JOB, 7)),
        ({"job_id": JOB, "build_no": "x"}, (JOB, None)),
        ({"job_id": "${X}", "build_no": "7"}, (None, 7)),
        ({}, (None, None)),
    ],
)
def test_a_build_is_read_as_far_as_its_parameters_are_sound(query, found):
    assert claimed_build(MultiDict(query)) == found
    assert claimed_build(MultiDict([*query.items(), ("job_id", "b" * 32)]))[0] in (None, "b" * 32)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        (None, ""),
    ],
)
def test_an_origin_is_an_address_or_the_network_of_an_ipv6_address(address, origin):
    assert network_of(address) == origin


# -- any client can send these heads, and the event loop reads them ----------------------------------------------


def form_request(path: str, parameters: str = "boundary=x"):
    headers = {"Content-Type": f"Multipart/Form-Data; {parameters}"}
    return make_mocked_request("POST", f"{path}?job_id={JOB}&build_no=7", headers=headers)


def test_the_parameters_of_a_content_type_cost_nothing_however_many_they_are():
    plain, hostile = form_request("/upload"), form_request("/upload", 'a="' * 1000)
    resembles_upload_path(form_request("/upload"))  # the first call of a process fills caches
    assert calls_of(lambda: resembles_upload_path(hostile)) <= 1.1 * calls_of(lambda: resembles_upload_path(plain))
    assert media_type(hostile) == "multipart/form-data"


def test_a_request_without_a_content_type_has_bytes():
    assert media_type(make_mocked_request("POST", "/")) == "application/octet-stream"


def test_no_component_lets_aiohttp_parse_a_content_type_or_cookies():
    parsing = re.compile(r"request\.(?:content_type|charset|cookies|post\(|json\(|text\()")
    folder = Path(bridge.server.__file__).parent
    assert [str(path) for path in folder.rglob("*.py") if parsing.search(_code(path))] == []


def _code(path: Path) -> str:
    return re.sub(r'"""(?s:.*?)"""', "", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("word", ["ulpo.", "tinuj.", "uplxd-", "%75lpo/"])
def test_words_of_a_path_are_compared_up_to_a_limit(word):
    long, longer = form_request("/" + 500 * word), form_request("/" + 5000 * word)
    assert calls_of(lambda: resembles_upload_path(longer)) <= 1.1 * calls_of(lambda: resembles_upload_path(long))


@pytest.mark.parametrize("value", ["${" * 16_000, "$" * 32_000, "${" * 16_000 + "$"])
def test_a_variable_is_searched_for_once(value):
    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            claimed_build(MultiDict({"job_id": text}))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(value) < 8 * max(seconds(value[: len(value) // 8]), 1e-4)  # a search from every `${` takes 64 times


@pytest.mark.parametrize("value", ["${JOB}", "a${JOB}b", "${", "}${", "$JOB", "$", "a$JOB", "$JO-B", "${a${b}"])
def test_a_variable_that_was_not_expanded_is_named(value):
    expanded = value in {"${", "}${", "$", "a$JOB", "$JO-B"}
    with pytest.raises(BadParameter) as error:
        read_parameters(GOOD | {"job_id": value})
    assert ("not expanded" in str(error.value)) is not expanded
