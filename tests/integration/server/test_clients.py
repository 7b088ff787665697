"""The same report as different clients send it is one report: the same name, the same bytes."""

import asyncio
import email.encoders
import email.policy
import gzip
import hashlib
import quopri
import shutil
from base64 import b64encode, encodebytes
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart

import aiohttp
import pytest
import requests

from bridge.server.http.requests import UPLOAD_PATH
from tests.support.labels import content_of
from tests.support.upload_server import BOUNDARY, GOOD, JOB, MAX_REPORT, form, large

NAME = "测试 (1).xml"
SHA256 = hashlib.sha256(GOOD).hexdigest()


async def ran(*command: str, cwd=None) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed.")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    stdout, _ = await process.communicate()
    assert process.returncode == 0, stdout
    return stdout.decode()


def url_of(server, **query: str) -> str:
    return str(server.listener.make_url(UPLOAD_PATH).with_query({"job_id": JOB, "build_no": "7"} | query))


async def curl(server, folder, *arguments: str, token: str = "any") -> str:
    common = ("curl", "-q", "-sS", "--noproxy", "*", "-H", f"X-Auth-Token: {token}")
    return await ran(*common, *arguments, url_of(server), cwd=folder)


def only_report(server):
    [upload] = server.uploads
    assert upload.rejections == ()
    [report] = upload.reports
    return report


@pytest.mark.parametrize("encoder", ["", "base64", "quoted-printable", "8bit", "binary"])
async def test_curl_may_encode_a_file_in_any_way(server, tmp_path, encoder):
    (tmp_path / NAME).write_bytes(GOOD)
    await curl(server, tmp_path, "-F", f'files=@"{NAME}"' + (f";encoder={encoder}" if encoder else ""))
    report = only_report(server)
    assert (report.name, report.received_sha256, report.body) == (NAME, SHA256, GOOD)


async def test_aiohttp_which_percent_encodes_names_sends_the_same_report(server):
    data = aiohttp.FormData()
    data.add_field("files", GOOD, filename=NAME)
    async with (
        aiohttp.ClientSession() as session,
        session.post(url_of(server), data=data, headers={"X-Auth-Token": "any"}) as answer,
    ):
        assert answer.status == 200
    report = only_report(server)
    assert (report.name, report.received_sha256) == (NAME, SHA256)


async def test_requests_sends_the_same_report(server):
    def post():
        return requests.post(url_of(server), files={"files": (NAME, GOOD)}, headers={"X-Auth-Token": "any"}, timeout=60)

    assert (await asyncio.to_thread(post)).status_code == 200
    report = only_report(server)
    assert (report.name, report.received_sha256) == (NAME, SHA256)


@pytest.mark.parametrize("encode", [email.encoders.encode_base64, email.encoders.encode_quopri])
async def test_ansible_which_builds_forms_with_the_mail_library_sends_the_same_report(server, send, encode):
    message = MIMEMultipart("form-data")
    file = MIMEApplication(GOOD, _encoder=encode)
    file.add_header("Content-Disposition", "form-data", name="files", filename=NAME)
    message.attach(file)
    head, _, body = message.as_bytes(policy=email.policy.HTTP).partition(b"\r\n\r\n")
    content_type = head.decode().split("Content-Type: ")[1].split("\r\nMIME")[0].replace("\r\n", "")
    status, _, _ = await send(body, headers={"Content-Type": content_type})
    assert status == 200
    report = only_report(server)
    assert (report.name, report.received_sha256) == (NAME, SHA256)


async def test_wget_shows_only_the_status_but_the_reason_is_recorded(server, tmp_path):
    (tmp_path / "form").write_bytes(form(("a.xml", b"<html/>")))
    headers = ("--header=X-Auth-Token: any", f"--header=Content-Type: multipart/form-data; boundary={BOUNDARY}")
    command = ("wget", "-q", "--no-config", "--no-proxy", "-O", "-", *headers, "--post-file=form", url_of(server))
    with pytest.raises(AssertionError):
        await ran(*command, cwd=tmp_path)
    [rejection] = server.uploads[0].rejections
    assert rejection.reason.startswith("a.xml: ")


async def test_curl_that_waits_for_100_continue_sends_no_body_if_it_is_rejected(server, tmp_path):
    (tmp_path / "a.xml").write_bytes(large(MAX_REPORT))
    wait = ("-H", "Expect: 100-continue", "--expect100-timeout", "60", "-F", "files=@a.xml", "-o", "answer")
    shown = ("-w", "%{http_code} %{size_upload}")
    assert await curl(server, tmp_path, *wait, *shown, token="wrong") == "401 0"
    server.admitting = False
    assert await curl(server, tmp_path, *wait, *shown) == "503 0"
    server.admitting = True
    status, _, size = (await curl(server, tmp_path, *wait, *shown)).partition(" ")
    assert (status, int(size) > MAX_REPORT) == ("200", True)


# -- transfer encodings ------------------------------------------------------------------------------------------------


def encoded(name: str, content: bytes, encoding: str, *more: str) -> bytes:
    return form(
        (name, content), headers="".join(f"{line}\r\n" for line in (f"Content-Transfer-Encoding: {encoding}", *more))
    )


@pytest.mark.parametrize("encode", [encodebytes, quopri.encodestring], ids=["base64", "quoted-printable"])
async def test_a_large_report_is_decoded_as_it_arrives(server, send, encode):
    content = large(MAX_REPORT)
    encoding = "Base64" if encode is encodebytes else "Quoted-Printable"
    status, _, _ = await send(encoded("a.xml", encode(content), encoding))
    assert status == 200
    report = only_report(server)
    assert (report.size, report.received_sha256) == (MAX_REPORT, hashlib.sha256(content).hexdigest())
    assert content_of(server.root / report.blob) == content


async def test_the_limit_of_a_report_holds_for_the_decoded_bytes(server, send):
    status, answer, _ = await send(encoded("a.xml", encodebytes(large(MAX_REPORT + 1)), "base64"))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert server.spooled == []


async def test_a_compressed_report_may_be_in_base64_too(server, send):
    packed = encodebytes(gzip.compress(GOOD))
    for more in ((), ("Content-Encoding: gzip",)):
        assert (await send(encoded("a.xml.gz", packed, "base64", *more)))[0] == 200
    assert [upload.reports[0].body for upload in server.uploads] == [GOOD, GOOD]


async def test_an_unknown_transfer_encoding_is_415_and_named(server, send):
    status, answer, _ = await send(encoded("a.xml", GOOD, "x-uuencode"))
    assert (status, answer["error_code"]) == (415, "BRIDGE.ENCODING")
    assert answer["error_msg"].startswith('a.xml: The Content-Transfer-Encoding "x-uuencode" is not supported.')
    [rejection] = server.uploads[0].rejections
    assert rejection.reason == answer["error_msg"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [(GOOD, "base64"), (b64encode(GOOD)[:-3], "base64"), (GOOD, "quoted-printable"), (GOOD * 50, "base64")],
)
async def test_a_broken_encoding_is_400_and_named(server, send, content, encoding):
    status, answer, _ = await send(encoded("a.xml", content, encoding))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith(f"a.xml is not valid {encoding}, which the Content-Transfer-Encoding ")
    assert len(server.uploads[0].rejections) == 1


async def test_one_broken_file_leaves_the_others(server, send):
    body = encoded("bad.xml", GOOD, "base64").removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form(("good.xml", GOOD))
    status, answer, _ = await send(body)
    assert (status, "The other 1 report of this upload was accepted." in answer["error_msg"]) == (400, True)
    assert [report.name for report in server.uploads[0].reports] == ["good.xml"]


async def test_fields_are_decoded_too(server, send):
    part = '--{}\r\nContent-Disposition: form-data; name="branch"\r\nContent-Transfer-Encoding: {}\r\n\r\n{}\r\n'
    body = part.format(BOUNDARY, "base64", b64encode("登录".encode()).decode()).encode()
    assert (await send(body + form(("a.xml", GOOD))))[0] == 200
    assert server.uploads[0].upload_metadata.branch == "登录"
    status, answer, _ = await send(part.format(BOUNDARY, "x-uue", "x").encode() + form(("a.xml", GOOD)))
    assert (status, answer["error_code"]) == (415, "BRIDGE.ENCODING")
    assert answer["error_msg"].startswith('The form field "branch": The Content-Transfer-Encoding "x-uue"')
