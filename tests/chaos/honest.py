"""An honest CI: it plays builds, uploads their reports as the README's curl does, and records the answers.

The builds of the greedy caller are played in the same way, with its own token.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Self

import aiohttp

from tests.chaos.plan import Ending, Play
from tests.chaos.stage import GREEDY, Stage
from tests.support.builds import UPLOAD_PATH, Build, Upload
from tests.support.canaries import CALLER

RETRIES = 6  # --retry
FIRST_PAUSE_SECONDS = 0.25  # and twice as long each time; curl begins with a second
RETRY_SECONDS = 120.0  # --retry-max-time
CONNECT_SECONDS, LONGEST_SECONDS = 10.0, 60.0  # --connect-timeout, --max-time
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
OPENED_SECONDS = 8.0  # for a run to be opened; else CodeArts forgets nothing
LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """One report as CI sends it: what makes it the same or another one."""

    build: str
    node_id: str
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PutOff:
    """One try that was answered "come again", in microseconds UTC."""

    requested_at: int
    answered_at: int


@dataclass(slots=True)
class Books:
    """What CI knows: which reports it tried to send, and of which it was told "success"."""

    sent: set[Sent] = field(default_factory=set)
    accepted: set[Sent] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)  # builds of which an upload said complete=true
    put_off: list[PutOff] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # honest uploads that were answered anything else
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    status: int  # 0: none came, and the connection could not be made; -1: it was cut
    text: str = ""
    retry_after_seconds: float = 0.0


_ENDS = {0: "tries not connected or not answered in time", -1: "tries cut"}


class HonestCi:
    """Plays builds; whatever is not taken within curl's patience is left at that."""

    def __init__(self, stage: Stage, books: Books) -> None:
        self._stage = stage
        self._books = books

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS, sock_connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)  # each upload is a curl of its own
        self._http = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def play(self, play: Play) -> None:
        """Play one build from its start to its end, and what CI sends of it later."""
        build, world = play.build, self._stage.world
        record = {"branch": build.branch, "commit": build.commit}
        world.builds.start(build.job_id, build.build_no, at=world.micros(), record=record)
        split = build.uploads_before_end
        if play.ending is Ending.COMPLETE:
            await self._send_by_node(play, build.uploads[:-1])
            await self._send(play, build.uploads[-1], complete=True)
            await self._end(play)
        else:
            await self._send_by_node(play, build.uploads[:split])
            await asyncio.sleep(build.pause_seconds)
            await self._end(play)
            await self._send_by_node(play, build.uploads[split:])
        if play.repeats:
            self._books.counts["repeats"] += 1
            await self._send(play, build.uploads[0])

    async def _end(self, play: Play) -> None:
        build, world = play.build, self._stage.world
        if play.ending is Ending.FORGOTTEN and await self._opened(build):
            world.builds.forget(build.job_id, build.build_no)
        else:
            world.builds.end(build.job_id, build.build_no, at=world.micros())

    async def _opened(self, build: Build) -> bool:
        """Tell whether TestNod gets a run of the build soon: one that CodeArts never knew waits a minute for that."""
        give_up_at = time.monotonic() + OPENED_SECONDS
        while not self._stage.world.runs.all(build.testnod_build_id):
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def _send_by_node(self, play: Play, uploads: Sequence[Upload]) -> None:
        by_node: defaultdict[str, list[Upload]] = defaultdict(list)
        for upload in uploads:
            by_node[upload.node_id].append(upload)
        await asyncio.gather(*(self._send_in_turn(play, of_node) for of_node in by_node.values()))

    async def _send_in_turn(self, play: Play, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            await self._send(play, upload)
            await asyncio.sleep(play.pause_seconds)

    # -- one upload ------------------------------------------------------------------------------------------------

    async def _send(self, play: Play, upload: Upload, *, complete: bool = False) -> None:
        sent = {
            Sent(build=play.build.key, node_id=upload.node_id, name=name, sha256=sha256(body).hexdigest())
            for name, body in upload.files
        }
        self._books.sent |= sent
        self._books.completed |= {play.build.key} if complete else set()
        self._books.counts["uploads"] += 1
        answer = await self._curl(play, upload, complete=complete)
        if answer.status == 200:
            self._books.accepted |= sent
        elif answer.status in RETRIED or answer.status <= 0:
            self._books.counts["uploads given up"] += 1
        else:
            self._books.refused.append(f"{play.build.key}: {answer.status} {answer.text}")

    async def _curl(self, play: Play, upload: Upload, *, complete: bool) -> _Answer:
        """Try as curl does, which takes a cut connection for final unless it is told otherwise."""
        began, retried = time.monotonic(), {0, -1, *RETRIED} if play.patient else {0, *RETRIED}
        for number in range(RETRIES + 1):
            answer = await self._try(play, upload, complete=complete)
            pause = answer.retry_after_seconds or FIRST_PAUSE_SECONDS * 2.0**number
            over = number == RETRIES or time.monotonic() - began + pause > RETRY_SECONDS
            if answer.status not in retried or over:
                break
            await asyncio.sleep(pause)
        return answer

    async def _try(self, play: Play, upload: Upload, *, complete: bool) -> _Answer:
        requested_at = self._stage.now()
        self._books.counts["tries"] += 1
        answer = await self._post(play, upload, complete=complete)
        self._books.counts[_ENDS.get(answer.status, f"tries answered {answer.status}")] += 1
        if answer.status in RETRIED and not play.greedy:  # which may have had more than its share
            self._books.put_off.append(PutOff(requested_at=requested_at, answered_at=self._stage.now()))
        return answer

    async def _post(self, play: Play, upload: Upload, *, complete: bool) -> _Answer:
        build, headers = play.build, {"X-Auth-Token": GREEDY if play.greedy else CALLER}
        form = aiohttp.FormData(quote_fields=False)
        for name, body in upload.files:
            form.add_field("files", body, filename=name, content_type="text/xml")
        params = {"job_id": build.job_id, "build_no": str(build.build_no), "node_id": upload.node_id}
        params |= {"complete": "true"} if complete else {}
        try:
            url = self._stage.server_url() + UPLOAD_PATH
            async with self._http.post(url, params=params, data=form, headers=headers) as response:
                said = _Answer(status=response.status, text=await response.text())
                return replace(said, retry_after_seconds=float(response.headers.get("Retry-After", "0")))
        except (aiohttp.ClientConnectorError, TimeoutError):
            return _Answer(status=0)
        except (aiohttp.ClientError, OSError):
            return _Answer(status=-1)
