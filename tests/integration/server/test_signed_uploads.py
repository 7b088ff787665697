"""Callers who sign, against the real gateway: uploads by the official SDK and by its signer alone."""

import asyncio
import gzip
import hashlib
import json
from io import BytesIO

import aiohttp
import pytest
import pytest_asyncio
from huaweicloudsdkcodeartsbuild.v3 import CodeArtsBuildClient
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.formdata import FormFile
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from bridge.server.upload.multipart_form import UploadForm
from tests.support.fake_clock import FakeClock
from tests.support.listener import running, say
from tests.support.upload_server import BOUNDARY, FORM, GOOD, NOT_JUNIT, form, large

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB, OTHER_JOB = "a1" * 16, "b2" * 16
UPLOAD_PATH = "/v1/report/junit/report/upload"
NOW_US = 1_772_323_200_000_000
DATE, LATE, EARLY = "20260301T000000Z", "20260228T234459Z", "20260301T001501Z"
PROJECT = "p" * 32
RIGHT = ("AKSHOP", "sk-canary/+=")
CALLERS = f"""\
[callers]
auth = ["token", "aksk"]
[[callers.tokens]]
name = "ci"
token = "canary-token"
routes = ["shop"]
[[callers.keys]]
name = "sdk"
access_key = "{RIGHT[0]}"
secret_key = "{RIGHT[1]}"
routes = ["shop"]
scopes = ["upload", "status"]
[[callers.keys]]
name = "sdk-before"
access_key = "AKBEFORE"
secret_key = "sk-before"
routes = ["shop"]
[[callers.keys]]
name = "reader"
access_key = "AKREADER"
secret_key = "sk-reader"
routes = ["shop"]
scopes = ["status"]
[[callers.keys]]
name = "ended"
access_key = "AKENDED"
secret_key = "sk-ended"
routes = ["shop"]
expires_at = 2026-03-01T00:00:00Z
[[routes]]
name = "shop"
project_token = "t-123456"
job_id = "{JOB}"
[[routes]]
name = "other"
project_token = "t-654321"
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(tmp_path_factory):
    async with running(tmp_path_factory.mktemp("gateway"), CALLERS, clock=FakeClock(NOW_US)) as gateway:
        yield gateway.server_url


@pytest.fixture
def build_no(request):
    """Return the number of a build of this test's own."""
    return 1 + int.from_bytes(hashlib.sha256(request.node.nodeid.encode()).digest()[:3])


def sdk_upload(url, build_no, report, *, key=RIGHT, date=DATE, job_id=JOB):
    """Upload as a script with the official SDK does; return the answer, or raise what the SDK raises."""
    builder = CodeArtsBuildClient.new_builder()
    client = builder.with_credentials(BasicCredentials(*key, PROJECT)).with_endpoint(url).build()
    with report.open("rb") as file:
        answer = client.do_http_request(
            method="POST",
            resource_path=UPLOAD_PATH,
            query_params=[("job_id", job_id), ("build_no", build_no), ("branch", "a b+c/d~ü")],
            header_params={"Content-Type": "multipart/form-data", "X-Sdk-Date": date},
            body={"files": FormFile(file)},
            response_type="ShowReportSummaryResponse",
        )
        return json.loads(answer.raw_content)


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.xml"
    path.write_bytes(GOOD)
    return path


def signed(url, build_no, body, *, key=RIGHT, date=DATE, headers=()):
    """Return target and headers as the official signer makes them for a body that it hashes (no Content-Type)."""
    query = [("build_no", str(build_no)), ("job_id", JOB)]
    request = SdkRequest(
        method="POST",
        schema="http",
        host=url.removeprefix("http://"),
        resource_path=UPLOAD_PATH,
        query_params=query,
        header_params={"X-Sdk-Date": date} | dict(headers),
        body=body,
    )
    made = Signer(BasicCredentials(*key)).sign(request)
    return url + made.uri, {name: value for name, value in made.header_params.items() if name != "Host"}


async def post(target, headers, body):
    async with aiohttp.ClientSession() as http, http.post(target, headers=FORM | headers, data=body) as answer:
        return answer.status, await answer.json()


async def what_became(url, build_no):
    target, headers = signed(url, build_no, b"")
    target = target.replace(UPLOAD_PATH, f"/bridge/v1/builds/{JOB}/{build_no}").partition("?")[0]
    request = SdkRequest(
        method="GET",
        schema="http",
        host=url.removeprefix("http://"),
        resource_path=target.removeprefix(url),
        query_params=[],
        header_params={"X-Sdk-Date": DATE},
        body=b"",
    )
    headers = Signer(BasicCredentials(*RIGHT)).sign(request).header_params
    async with aiohttp.ClientSession() as http, http.get(target, headers=headers) as answer:
        return await answer.json()


async def test_an_upload_by_the_sdk_is_kept_under_the_keys_name(url, build_no, report):
    answer = await asyncio.to_thread(sdk_upload, url, build_no, report)

    assert answer["status"] == "success"
    build = await what_became(url, build_no)
    assert [(told["name"], told["caller"]) for told in build["reports"]] == [("report.xml", "sdk")]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": (RIGHT[0], "sk-wrong")}, "verify aksk signature fail"),
        ({"key": ("AKNOBODY", RIGHT[1])}, "verify aksk signature fail"),
        ({"key": ("AKENDED", "sk-ended")}, "expired on 2026-03-01. "),
        ({"key": ("AKENDED", "sk-wrong")}, "verify aksk signature fail"),
        ({"date": LATE}, "X-Sdk-Date of the signed request is not a time within 15 minutes"),
        ({"date": EARLY}, "X-Sdk-Date of the signed request is not a time within 15 minutes"),
    ],
    ids=[
        "a wrong key",
        "an unknown key",
        "a key that ended",
        "a wrong key of one that ended",
        "a stale date",
        "a date ahead",
    ],
)
async def test_a_wrong_upload_fails_as_at_huawei(url, build_no, report, changes, says):
    with pytest.raises(ClientRequestException) as failed:
        await asyncio.to_thread(sdk_upload, url, build_no, report, **changes)

    assert (failed.value.status_code, failed.value.error_code) == (401, "APIGW.0301")
    assert says in failed.value.error_msg
    assert len(failed.value.request_id) == 32
    build = await what_became(url, build_no)
    assert (build.get("reports", []), build.get("rejections", [])) == (
        [],
        [],
    )


async def test_a_keys_routes_are_its_own(url, build_no, report):
    with pytest.raises(ClientRequestException) as failed:
        await asyncio.to_thread(sdk_upload, url, build_no, report, job_id=OTHER_JOB)
    assert (failed.value.status_code, failed.value.error_code) == (403, "APIGW.0302")


async def test_a_body_that_is_signed_is_verified_at_its_end(url, build_no):
    body = form(("report.xml", GOOD))
    target, headers = signed(url, build_no, body)

    assert await post(target, headers, body.replace(b"testcase", b"testCase")) == refused("verify aksk signature fail")
    assert (await what_became(url, build_no)).get("reports", []) == []
    status, answer = await post(target, headers, body)
    assert (status, answer["status"]) == (200, "success")
    status, answer = await post(target, headers, body)
    assert (status, "already known" in answer["result"]) == (200, True)


async def test_an_announced_digest_is_held_to(url, build_no):
    body = form(("report.xml", GOOD))
    announced = {"X-Sdk-Content-Sha256": hashlib.sha256(body).hexdigest()}
    target, headers = signed(url, build_no, body, headers=announced)

    assert await post(target, headers, body + b"\r\n") == refused("verify aksk signature fail")
    assert (await post(target, headers, body))[0] == 200


async def test_an_announced_digest_is_verified_before_the_body_arrives(url, build_no):
    body = form(("report.xml", GOOD))
    digest = hashlib.sha256(body).hexdigest()
    target, headers = signed(url, build_no, body, key=(RIGHT[0], "sk-wrong"), headers={"X-Sdk-Content-Sha256": digest})
    fields = {**FORM, **headers, "Host": url.removeprefix("http://"), "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    answer = await say(url, f"POST {target.removeprefix(url)} HTTP/1.1\r\n{head}\r\n".encode())  # and no body

    assert (answer.status, answer.json) == refused("verify aksk signature fail")


async def test_a_large_body_that_proves_its_signature_only_at_its_end_is_accepted(url, build_no):
    body = form(("small.xml", GOOD), ("large.xml", large(1_000_000)))
    target, headers = signed(url, build_no, body)

    assert (await post(target, headers, BytesIO(body)))[0] == 200
    assert {told["name"] for told in (await what_became(url, build_no))["reports"]} == {"small.xml", "large.xml"}


async def test_a_compressed_body_that_proves_its_signature_only_at_its_end_is_accepted(url, build_no):
    body = gzip.compress(form(("large.xml", large(1_000_000))))
    target, headers = signed(url, build_no, body)

    assert (await post(target, headers | {"Content-Encoding": "gzip"}, body))[0] == 200


async def test_nothing_of_a_body_is_read_as_a_form_before_it_has_proven_its_signature(url, build_no, monkeypatch):
    fed = []
    monkeypatch.setattr(UploadForm, "feed", lambda _form, piece: fed.append(piece) or iter(()))
    body = form(("report.xml", GOOD))
    target, headers = signed(url, build_no, body)
    impostor = headers | {"Authorization": headers["Authorization"][:-4] + "0000"}

    assert await post(target, impostor, body) == refused("verify aksk signature fail")
    assert fed == []


async def test_a_signature_that_leaves_the_body_out_serves_one_body(url, build_no):
    body = form(("report.xml", GOOD))
    target, headers = signed(url, build_no, body, headers={"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"})

    assert (await post(target, headers, body))[0] == 200
    status, answer = await post(target, headers, body)
    assert (status, "already known" in answer["result"]) == (200, True)
    another = await post(target, headers, form(("other.xml", GOOD)))
    assert another == refused("This signature was used with another body")
    assert len((await what_became(url, build_no))["reports"]) == 1


async def test_a_signature_serves_no_second_body_after_a_restart(tmp_path, build_no):
    clock, body = FakeClock(NOW_US), form(("report.xml", GOOD))
    unsigned = {"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"}
    async with running(tmp_path, CALLERS, clock=clock) as gateway:
        target, headers = signed(gateway.server_url, build_no, body, headers=unsigned)
        headers["Host"] = gateway.server_url.removeprefix("http://")
        assert (await post(target, headers, body))[0] == 200
    async with running(tmp_path, CALLERS, clock=clock) as gateway:
        target = gateway.server_url + target.removeprefix(f"http://{headers['Host']}")
        status, answer = await post(target, headers, form(("other.xml", GOOD)))
        assert (status, "was used with another body" in answer["error_msg"]) == (401, True)
        assert (await post(target, headers, body))[0] == 200


async def test_a_signature_of_an_upload_without_files_serves_no_files_later(url, build_no):
    target, headers = signed(url, build_no, b"x", headers={"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"})
    assert (await post(target, headers, b""))[0] == 400
    status, answer = await post(target, headers, form(("report.xml", GOOD)))
    assert (status, "was used with another body" in answer["error_msg"]) == (401, True)


async def test_a_fault_in_the_upload_is_told_and_noted_only_in_a_name_that_is_proven(url, build_no):
    body = form(("page.xml", NOT_JUNIT)).replace(f"--{BOUNDARY}--".encode(), b"")  # no end: no form
    target, headers = signed(url, build_no, body)

    impostor = headers | {"Authorization": headers["Authorization"][:-4] + "0000"}
    assert await post(target, impostor, body) == refused("verify aksk signature fail")
    assert (await what_became(url, build_no)).get("rejections", []) == []

    status, answer = await post(target, headers, body)
    assert (status, answer["error_code"]) == (400, "CB.00060200")
    assert [told["caller"] for told in (await what_became(url, build_no))["rejections"]] == ["sdk"]


async def test_a_signature_that_its_body_would_have_to_prove_opens_nothing_that_leaves_bodies_alone(url, build_no):
    _, headers = signed(url, build_no, b"a body", key=(RIGHT[0], "sk-guess"))
    path = f"/bridge/v1/builds/{JOB}/{build_no}"
    async with aiohttp.ClientSession() as http, http.get(url + path, headers=headers, data=b"a body") as answer:
        assert (answer.status, (await answer.json())["error_code"]) == (401, "APIGW.0301")


async def test_only_the_holder_of_a_key_learns_whether_it_may_upload(url, build_no):
    body = form(("report.xml", GOOD))
    target, headers = signed(url, build_no, body, key=("AKREADER", "sk-reader"))
    impostor = headers | {"Authorization": headers["Authorization"][:-4] + "0000"}

    assert await post(target, impostor, body) == refused("verify aksk signature fail")
    status, answer = await post(target, headers, body)
    assert (status, answer["error_code"]) == (403, "APIGW.0302")
    assert '"reader"' in answer["error_msg"]


async def test_an_upload_without_a_body_is_signed_with_the_empty_digest(url, build_no):
    target, headers = signed(url, build_no, b"", headers={"Content-Type": "multipart/form-data; boundary=x"})
    status, answer = await post(target, headers, b"")
    assert (status, answer["error_msg"].startswith("The upload contains no files.")) == (400, True)


async def test_another_header_than_those_that_were_signed_may_change_and_no_signed_one(url, build_no):
    body = form(("report.xml", GOOD))
    target, headers = signed(url, build_no, body, headers={"X-Project-Id": PROJECT})

    assert (await post(target, headers | {"X-Project-Id": "q" * 32}, body))[0] == 401
    assert (await post(target + "&branch=main", headers, body))[0] == 401
    assert (await post(target, headers | {"X-Other": "1"}, body))[0] == 200


async def test_who_fails_often_is_locked_out_alone(url, build_no):
    body = form(("report.xml", GOOD))
    key = ("AKBEFORE", "sk-before")
    target, wrong = signed(url, build_no, body, key=(key[0], "sk-wrong"))
    for _ in range(6):
        assert await post(target, wrong, body) == refused("verify aksk signature fail")

    target, right = signed(url, build_no, body, key=key)
    assert await post(target, right, body) == refused("AK access failed to reach the limit,forbidden")
    assert (await post(*signed(url, build_no, body), body))[0] == 200  # another key from the same address


def refused(says):
    """Return what equals a 401 that says so."""
    return _Refused(says)


class _Refused:
    def __init__(self, says):
        self._says = says

    def __eq__(self, answer):
        status, body = answer
        return (status, body["error_code"], self._says in body["error_msg"]) == (401, "APIGW.0301", True)

    __hash__ = None

    def __repr__(self):
        return f"<401 {self._says}>"
