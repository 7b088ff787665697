"""TestNod, its storage and CodeArts in place of the clients of one owner: each call waits until the story answers it.

Whether a request arrives is decided when it is sent. The story decides which outcome its sender gets, and when.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bridge.domain.build import Build, BuildRecord, RunParameters
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, RecordFetched, RunMissing, Stored
from bridge.worker.reconcile import BuildReconciler
from tests.support.builders import MINUTE, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.model import outcomes
from tests.support.model.testnod import TestNodModel

URL_LIFETIME = 5 * MINUTE

NEVER_ARRIVED: dict[str, tuple[Any, ...]] = {
    "register": outcomes.REGISTER,
    "finalize": outcomes.TESTNOD,
    "upload_failed": outcomes.TESTNOD,
    "probe": outcomes.TESTNOD,
    "put": outcomes.PUT,
    "slow put": outcomes.SLOW_PUT,
    "codearts": outcomes.CODEARTS,
}
"""What a caller may receive of a request that did not arrive."""

VISIT: ContextVar[BuildReconciler | None] = ContextVar("VISIT", default=None)
"""The visit whose call is made."""


@dataclass(eq=False)
class Pending:
    """A call under way; `result` is what its effect answered, None where it never arrived."""

    kind: str
    result: Any
    answer: asyncio.Future[Any]

    def hear(self, choice: int) -> None:
        """Answer the call: 0 gives its result, any other number a fault."""
        troubles = NEVER_ARRIVED[self.kind] if self.result is None else (outcomes.CUT,)
        outcome = self.result if self.result is not None and not choice else troubles[choice % len(troubles)]
        if not self.answer.done():
            self.answer.set_result(outcome)


@dataclass(eq=False)
class SlowPut:
    """A PUT whose bytes are still on their way: it arrives before `until`, or never."""

    until: int
    arrive: Callable[[], object]


@dataclass(kw_only=True)
class Far:
    """What is the same for all owners: runs, objects, builds at CodeArts, and whether requests arrive now."""

    clock: FakeClock
    nods: dict[str, TestNodModel] = field(default_factory=dict)  # by the build_id of the route
    stored: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # that build_id and upload: digests
    ended: dict[str, bool] = field(default_factory=dict)  # build keys that CodeArts knows
    has_codearts: bool = True
    arrives: dict[str, bool] = field(default_factory=lambda: {"testnod": True, "s3": True, "codearts": True})
    slow: bool = False  # PUTs take their time
    slow_puts: list[SlowPut] = field(default_factory=list)
    finalizes: list[Build] = field(default_factory=list)  # as they were when finalize was called

    def nod(self, build_id: str) -> TestNodModel:
        return self.nods.setdefault(route_build_id(build_id), TestNodModel(url_lives=URL_LIFETIME))

    def say(self, key: str, ended: bool | None) -> None:  # noqa: FBT001 -- one of three values
        """Let CodeArts report a build as ended or running from now on; None: as unknown."""
        if ended is None:
            self.ended.pop(key, None)
        else:
            self.ended[key] = ended

    def put(self, url: str, digest: str, begun_at: int) -> Any:
        """Store a PUT that arrives now."""
        build_id, upload_id = url.split("/")[-2:]
        outcome = self.nod(build_id).put(f"https://storage.test/{upload_id}", begun_at)
        if isinstance(outcome, Stored):
            self.stored.setdefault((route_build_id(build_id), upload_id), []).append(digest)
        return outcome

    def forget_slow(self) -> None:
        """Drop PUTs that can no longer arrive, because their sender has closed the connection."""
        self.slow_puts = [put for put in self.slow_puts if put.until > self.clock.now()]


class Outside:
    """The clients of one owner (`worker.upstreams.Upstreams`)."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self.pending: list[Pending] = []

    async def _call(self, kind: str, upstream: str, effect: Callable[[], Any]) -> Any:
        result = effect() if self._far.arrives[upstream] else None
        answer = asyncio.get_running_loop().create_future()
        pending = Pending(kind=kind, result=result, answer=answer)
        self.pending.append(pending)
        try:
            return await answer
        finally:
            self.pending.remove(pending)

    # -- TestNod -------------------------------------------------------------------------------------------------

    async def register(self, _token: str, run_parameters: RunParameters) -> Any:
        far = self._far

        def effect() -> Any:
            build_id = run_parameters.build_id
            answer = far.nod(build_id).register(0, far.clock.now(), build_id)
            names = {"test_run_id": answer.test_run_id, "test_run_url": answer.test_run_url}
            url = f"https://storage.test/{run_parameters.build_id}/{answer.upload_id}"
            return type(answer)(**names, upload_id=answer.upload_id, presigned_url=url, expires_at=answer.expires_at)

        return await self._call("register", "testnod", effect)

    async def upload_failed(self, _token: str, *, test_run_id: str, upload_id: str, failure_message: str) -> Any:
        assert test_run_id
        assert failure_message
        build_id = self._build_id()
        return await self._call("upload_failed", "testnod", lambda: self._far.nod(build_id).upload_failed(upload_id))

    async def finalize(self, _token: str, build_id: str) -> Any:
        visit = VISIT.get()
        assert visit is not None
        self._far.finalizes.append(visit.build)
        return await self._call("finalize", "testnod", lambda: self._far.nod(build_id).finalize(build_id))

    async def probe(self, _token: str) -> Any:
        return await self._call("probe", "testnod", lambda: RunMissing(message="Test run not found"))

    def _build_id(self) -> str:
        visit = VISIT.get()
        assert visit is not None
        assert visit.build.run_parameters is not None
        return visit.build.run_parameters.build_id

    # -- storage -------------------------------------------------------------------------------------------------

    async def put(self, url: str, chunks: bytes | AsyncIterator[bytes], *, size: int, sha256: str) -> Any:
        assert isinstance(chunks, bytes)
        assert (len(chunks), digest_of(chunks)) == (size, sha256)
        far, begun_at = self._far, self._far.clock.now()
        if far.slow and far.arrives["s3"]:
            arrive = lambda: far.put(url, sha256, begun_at)  # noqa: E731 -- what is done later
            far.slow_puts.append(SlowPut(until=begun_at + POLICY.max_put_duration, arrive=arrive))
            return await self._call("slow put", "s3", lambda: None)
        return await self._call("put", "s3", lambda: far.put(url, sha256, begun_at))

    # -- CodeArts ------------------------------------------------------------------------------------------------

    async def record_info(self, job_id: str, build_no: int) -> Any:
        return await self._of_build(job_id, build_no, lambda _: RecordFetched(record=BuildRecord()))

    async def build_info(self, job_id: str, build_no: int) -> Any:
        return await self._of_build(
            job_id,
            build_no,
            lambda ended: BuildInfo(building=not ended, result="SUCCESS" if ended else None, region=None),
        )

    async def _of_build(self, job_id: str, build_no: int, known: Callable[[bool], Any]) -> Any:
        ended = self._far.ended.get(f"{job_id}/{build_no}")
        return await self._call(
            "codearts", "codearts", lambda: NoSuchBuild(message="?") if ended is None else known(ended)
        )


def route_build_id(build_id: str) -> str:
    """Return the build_id of the first generation."""
    return build_id.partition(".")[0]


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()
