"""Random builds drawn from a seed, and a client that plays them: uploads as CI makes them, ends at drawn times."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Self

import aiohttp

from bridge.sandbox.state import SandboxState
from tests.support.corpus import Corpus
from tests.support.processes import until

NODES = ("default", "linux", "windows")
MOST_REPORTS = 20
MOST_FILES = 6  # of one upload
LATE_SHARE = 0.15  # of the builds: their last upload comes only when the run has been finalized
LONG_SHARE = 0.15  # of the builds: they go on for longer than a run takes to settle after their last report

AT_ONCE = 16  # builds that run side by side
PATIENCE_SECONDS = 180.0  # of one curl loop: longer than any outage of these tests
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 60.0  # for one try: several times what the gateway takes to give up an upload
UPLOAD_PATH = "/v1/report/junit/report/upload"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """One request: files of one node, by name."""

    node_id: str
    files: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """One build from its start to its end. It ends when `uploads_before_end` of its uploads are answered."""

    job_id: str
    build_no: int
    branch: str
    commit: str
    uploads: tuple[Upload, ...]
    uploads_before_end: int
    waits_for_finalize: bool  # before the uploads that come after its end
    pause_seconds: float  # before its end

    @property
    def key(self) -> str:
        return f"{self.job_id}/{self.build_no}"

    @property
    def testnod_build_id(self) -> str:
        return f"codearts-{self.job_id}-{self.build_no}"

    @property
    def punctual(self) -> bool:
        """Return whether all its reports were uploaded before it ended."""
        return self.uploads_before_end == len(self.uploads)

    def digests(self) -> Counter[str]:
        """Return how often each content is sent."""
        return Counter(sha256(body).hexdigest() for upload in self.uploads for _, body in upload.files)

    def count(self) -> int:
        return sum(len(upload.files) for upload in self.uploads)


def small_build(build_no: int, *, job_id: str = "a" * 32) -> Build:
    """Return a build of one report, whose bytes are its own and which is uploaded before the build ends."""
    body = f'<testsuite name="{job_id}/{build_no}"><testcase name="a"/></testsuite>'.encode()
    return Build(
        job_id=job_id,
        build_no=build_no,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="default", files=((f"TEST-{build_no}.xml", body),)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )


def draw_builds(chance: Random, corpus: Corpus, count: int) -> list[Build]:
    """Draw builds of 1 to 20 reports from the corpus."""
    return [_draw_build(chance, corpus, number) for number in range(1, count + 1)]


def _draw_build(chance: Random, corpus: Corpus, build_no: int) -> Build:
    by_node: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
    nodes = chance.sample(NODES, chance.randint(1, len(NODES)))
    for number in range(chance.randint(1, MOST_REPORTS)):
        name, body = chance.choice(corpus.reports)
        by_node[chance.choice(nodes)].append((f"{number:02}-{name}", body))
    uploads = [upload for node, files in by_node.items() for upload in _draw_uploads(chance, node, files)]
    chance.shuffle(uploads)
    late = len(uploads) > 1 and chance.random() < LATE_SHARE
    return Build(
        job_id=f"{chance.getrandbits(128):032x}",
        build_no=build_no,
        branch=f"branch-{build_no}",
        commit=f"{chance.getrandbits(160):040x}",
        uploads=tuple(uploads),
        uploads_before_end=len(uploads) - 1 if late else chance.randint(1, len(uploads)),
        waits_for_finalize=late,
        pause_seconds=chance.uniform(1.2, 2.0) if chance.random() < LONG_SHARE else chance.uniform(0, 0.4),
    )


def _draw_uploads(chance: Random, node_id: str, files: Sequence[tuple[str, bytes]]) -> list[Upload]:
    uploads = []
    rest = list(files)
    while rest:
        size = chance.randint(1, MOST_FILES)
        uploads.append(Upload(node_id=node_id, files=tuple(rest[:size])))
        rest = rest[size:]
    return uploads


class Ci:
    """Plays builds against a gateway. It asks for the address before each try, as DNS gives it for a service's name."""

    def __init__(self, world: SandboxState, server_url: Callable[[], str], *, token: str = "") -> None:
        self._world = world
        self._server_url = server_url
        self._headers = {"X-Auth-Token": token} if token else {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self.answered = 0  # uploads that were answered "success"
        self.tries = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS), headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def play_all(self, builds: Sequence[Build]) -> None:
        """Play builds, so many at once."""
        async with asyncio.TaskGroup() as plays:
            for build in builds:
                plays.create_task(self._play_in_turn(build))

    async def _play_in_turn(self, build: Build) -> None:
        async with self._places:
            await self.play(build)

    async def play(self, build: Build) -> None:
        """Start a build, upload the reports of its nodes concurrently, and end it at its time."""
        record = {"branch": build.branch, "commit": build.commit}
        self._world.builds.start(build.job_id, build.build_no, at=self._world.micros(), record=record)
        split = build.uploads_before_end
        await self._send_by_node(build, build.uploads[:split])
        if build.waits_for_finalize:
            await self._end(build)
            await self._finalized(build)
            await self._send_by_node(build, build.uploads[split:])
        else:
            await asyncio.gather(self._end(build), self._send_by_node(build, build.uploads[split:]))

    async def _end(self, build: Build) -> None:
        await asyncio.sleep(build.pause_seconds)
        self._world.builds.end(build.job_id, build.build_no, at=self._world.micros())

    async def _finalized(self, build: Build) -> None:
        await until(
            lambda: any(run.finalize_calls for run in self._world.runs.all(build.testnod_build_id)),
            f"the first run of {build.key} is finalized",
            seconds=PATIENCE_SECONDS,
        )

    async def _send_by_node(self, build: Build, uploads: Sequence[Upload]) -> None:
        by_node: defaultdict[str, list[Upload]] = defaultdict(list)
        for upload in uploads:
            by_node[upload.node_id].append(upload)
        await asyncio.gather(*(self._send_in_turn(build, of_node) for of_node in by_node.values()))

    async def _send_in_turn(self, build: Build, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            status, body = await self.send(build, upload)
            assert status == 200, f"{build.key} was answered {status}: {body}"
            self.answered += 1

    async def send(self, build: Build, upload: Upload) -> tuple[int, str]:
        """Upload as `curl --retry` does: again if there is no answer or a 503. Return any other answer."""
        return await retried(lambda: self._post(build, upload))

    async def _post(self, build: Build, upload: Upload) -> tuple[int, str]:
        self.tries += 1
        form = aiohttp.FormData(quote_fields=False)
        for name, body in upload.files:
            form.add_field("files", body, filename=name, content_type="text/xml")
        params = {"job_id": build.job_id, "build_no": str(build.build_no), "node_id": upload.node_id}
        async with self._http.post(self._server_url() + UPLOAD_PATH, params=params, data=form) as answer:
            return answer.status, await answer.text()


async def retried(post: Callable[[], Awaitable[tuple[int, str]]]) -> tuple[int, str]:
    """Return the first answer that is not 503."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            status, body = await post()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, body = 503, f"{type(error).__name__}: {error}"
        if status != 503 or time.monotonic() > give_up_at:
            return status, body
        await asyncio.sleep(RETRY_SECONDS)
