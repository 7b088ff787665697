"""The server listener over TLS, before the real gateway: who is let in how, and a certificate that is renewed."""

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from huaweicloudsdkcodeartsbuild.v3 import CodeArtsBuildClient
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.formdata import FormFile
from huaweicloudsdkcore.http.http_config import HttpConfig

from bridge.errors import SettingsError
from bridge.server.http.tls import CHECK_INTERVAL_US, Certificate
from bridge.settings.tls_files import CertificateFiles
from tests.support.fake_clock import START, FakeClock
from tests.support.listener import PATIENCE_SECONDS, running
from tests.support.upload_server import FORM, GOOD, form

JOB = "a1" * 16
UPLOAD = f"/v1/report/junit/report/upload?job_id={JOB}&build_no=1"
TOKEN = {"X-Auth-Token": "canary-token"}
CALLERS = """\
[callers]
auth = "token"
[[callers.tokens]]
name = "ci"
token = "canary-token"
scopes = ["upload", "status"]
[[routes]]
name = "shop"
project_token = "t-123456"
"""


class Files:
    """The pair of files that the settings name, and who may put something there."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.authority = trustme.CA()
        self.trust = ssl.create_default_context()
        self.authority.configure_trust(self.trust)

    @property
    def settings(self) -> str:
        return f'tls_cert_file = "{self.cert}"\ntls_key_file = "{self.key}"'

    def put(self, name: str) -> None:
        """Put a good pair there whose certificate carries `name`."""
        issued = self.authority.issue_cert("127.0.0.1", "localhost", common_name=name)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def put_key_of_another(self, path: Path) -> None:
        path.write_bytes(self.authority.issue_cert("localhost").private_key_pem.bytes())

    def put_locked_key(self, path: Path) -> None:
        """Put the key there behind a password."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"password")))


@pytest.fixture
def files(tmp_path):
    files = Files(tmp_path)
    files.put("first")
    return files


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
async def gateway(tmp_path, files, clock):
    async with running(tmp_path, CALLERS, server=files.settings, clock=clock) as gateway:
        yield gateway


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as http:
        yield http


async def shown(gateway, files, *, name="127.0.0.1"):
    """Return the name in the certificate that a new connection is shown; no address goes along as a server's name."""
    port = int(gateway.server_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=files.trust, server_hostname=name)
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return dict(pair for pairs in subject for pair in pairs)["commonName"]


async def readiness(gateway, http):
    async with http.get(f"{gateway.admin_url}/readyz") as answer:
        return answer.status, (await answer.json())["certificate_fault"]


async def figure(gateway, http):
    async with http.get(f"{gateway.admin_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(line for line in lines if line.startswith("bridge_tls_certificate_invalid "))


async def expect_soon(clock, what, wanted):
    """Let the gateway look at the files until `what()` returns `wanted`; fail if it does not."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await what() != wanted:
            clock.advance(CHECK_INTERVAL_US)


async def test_uploads_status_and_health_come_over_tls(gateway, files, http):
    assert gateway.server_url.startswith("https://127.0.0.1:")
    body = form(
        ("report.xml", GOOD), ("large.xml", GOOD.replace(b"<failure/>", b"<failure>" + b"x" * 300_000 + b"</failure>"))
    )

    sent = {"headers": FORM | TOKEN, "data": body, "ssl": files.trust}
    async with http.post(gateway.server_url + UPLOAD, **sent) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "success")
    for path in (f"/bridge/v1/builds/{JOB}/1", "/livez", "/readyz"):
        async with http.get(gateway.server_url + path, headers=TOKEN, ssl=files.trust) as answer:
            assert answer.status == 200


async def test_the_official_sdk_uploads_over_tls(gateway, files, tmp_path):
    (tmp_path / "ca.pem").write_bytes(files.authority.cert_pem.bytes())
    (tmp_path / "report.xml").write_bytes(GOOD)

    def upload(token):
        builder = CodeArtsBuildClient.new_builder().with_credentials(BasicCredentials("AKSHOP", "canary-sk", "0" * 32))
        trust = HttpConfig(ssl_ca_cert=str(tmp_path / "ca.pem"))
        client = builder.with_endpoint(gateway.server_url).with_http_config(trust).build()
        with (tmp_path / "report.xml").open("rb") as file:
            return client.do_http_request(
                method="POST",
                resource_path="/v1/report/junit/report/upload",
                query_params=[("job_id", JOB), ("build_no", 1)],
                header_params={"Content-Type": "multipart/form-data", "X-Auth-Token": token},
                body={"files": FormFile(file)},
                response_type="ShowReportSummaryResponse",
            )

    answer = await asyncio.to_thread(upload, "canary-token")
    assert json.loads(answer.raw_content)["status"] == "success"
    with pytest.raises(ClientRequestException) as refused:
        await asyncio.to_thread(upload, "canary-other")
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(gateway, files, version):
    files.trust.minimum_version = files.trust.maximum_version = version
    assert await shown(gateway, files) == "first"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_older_tls_and_plain_http_are_not_spoken(gateway, files, http):
    files.trust.minimum_version = ssl.TLSVersion.TLSv1
    files.trust.maximum_version = ssl.TLSVersion.TLSv1_1
    files.trust.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(gateway, files)
    with pytest.raises(aiohttp.ClientError):
        await http.get(gateway.server_url.replace("https:", "http:") + "/livez")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_renewed_certificate_is_shown_without_a_restart(gateway, files, clock, name):
    assert await shown(gateway, files, name=name) == "first"

    files.put("second")

    await expect_soon(clock, lambda: shown(gateway, files, name=name), "second")


@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
async def test_every_label_of_a_certificate_is_read_at_the_start_and_later(tmp_path, files, clock, label):
    def put(name):
        files.put(name)
        pem = files.cert.read_text().replace("BEGIN CERTIFICATE", f"BEGIN {label}")
        files.cert.write_text("A comment.\n" + pem.replace("END CERTIFICATE", f"END {label}"))

    put("first")
    async with running(tmp_path, CALLERS, server=files.settings, clock=clock) as gateway:
        certificate = gateway._certificate
        first = certificate.fingerprint
        assert first
        assert certificate.ends_at
        put("second")
        await expect_soon(clock, lambda: shown(gateway, files), "second")
        await certificate.refresh()
        assert certificate.fault is None
        assert certificate.fingerprint not in {"", first}


async def test_a_certificate_whose_end_cannot_be_read_is_used(files, monkeypatch):
    monkeypatch.setattr(CertificateFiles, "certificate", lambda _files: b"unknown")
    certificate = Certificate(CertificateFiles(cert_file=str(files.cert), key_file=str(files.key)))
    files.put("second")
    await certificate.refresh()
    assert (certificate.fault, certificate.ends_at, certificate.fingerprint) == (None, None, "")


async def test_a_bad_pair_keeps_the_old_one_and_is_said(gateway, files, http, clock):
    assert await readiness(gateway, http) == (200, None)
    assert await figure(gateway, http) == "bridge_tls_certificate_invalid 0.0"

    files.put_key_of_another(files.key)

    await expect_soon(clock, lambda: figure(gateway, http), "bridge_tls_certificate_invalid 1.0")
    status, fault = await readiness(gateway, http)
    assert status == 200
    assert fault.endswith(
        "are not a certificate and its key in PEM form (key values mismatch). "
        "The former certificate stays in use. Put a valid pair there."
    )
    assert await shown(gateway, files) == "first"

    files.put("second")
    await expect_soon(clock, lambda: readiness(gateway, http), (200, None))
    assert await shown(gateway, files) == "second"


async def test_files_that_were_away_and_come_back_as_they_were_are_no_fault(gateway, files, http, clock):
    kept = files.cert.read_bytes()
    files.cert.unlink()
    await expect_soon(clock, lambda: figure(gateway, http), "bridge_tls_certificate_invalid 1.0")

    files.cert.write_bytes(kept)
    await expect_soon(clock, lambda: readiness(gateway, http), (200, None))
    assert await shown(gateway, files) == "first"


async def test_connections_under_way_outlive_a_renewal(gateway, files, clock):
    port = int(gateway.server_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=files.trust, server_hostname="localhost")
    files.put("second")
    await expect_soon(clock, lambda: shown(gateway, files), "second")

    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


HALF = "is missing, although {} is set. Set both or neither."
REMEDY = "Name the certificate with its chain, and its key without a password."


@pytest.mark.parametrize(
    ("cert", "key", "begins", "ends"),
    [
        ("tls.crt", "", "server.tls_key_file: ", HALF.format("tls_cert_file")),
        ("", "tls.key", "server.tls_cert_file: ", HALF.format("tls_key_file")),
        ("none", "tls.key", "server.tls_cert_file: ", f"none cannot be read: No such file or directory. {REMEDY}"),
        ("tls.key", "tls.key", "server.tls_cert_file: ", REMEDY),
        ("tls.crt", "other.key", "server.tls_cert_file: ", f"(key values mismatch). {REMEDY}"),
        ("tls.crt", "locked.key", "server.tls_cert_file: ", REMEDY),
    ],
)
async def test_a_pair_that_cannot_be_used_is_a_reason_not_to_start(tmp_path, files, cert, key, begins, ends):
    files.put_key_of_another(tmp_path / "other.key")
    files.put_locked_key(tmp_path / "locked.key")
    paths = {"tls_cert_file": cert, "tls_key_file": key}
    server = "".join(f'{name} = "{tmp_path}/{file}"\n' for name, file in paths.items() if file)

    with pytest.raises(SettingsError) as refused:
        async with running(tmp_path, CALLERS, server=server):
            pass

    (said,) = refused.value.problems
    assert said.startswith(begins)
    assert said.endswith(ends)
