"""A greedy caller: it has a route of its own, and tries what it can at the builds of another one."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.plan import Greed, GreedyAct
from tests.chaos.stage import GREEDY, Stage
from tests.support.builds import UPLOAD_PATH, Build

NAME = "greedy"  # of the caller and its route
FLOOD = 101  # more than the rejections that are kept of one build
MADE_UP = 24
AT_ONCE = 8
ANSWER_SECONDS = 30.0
FOREIGN = b'<testsuite name="by a greedy caller"><testcase name="a"/></testsuite>'
SIGNED = "SDK-HMAC-SHA256 Access={key}, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64


def is_its_own(build: Mapping[str, Any]) -> bool:
    """Return whether a build, as the status API shows it, has nothing but what the greedy caller sent or may see."""
    return build["route"] in (None, NAME) and all(
        each["caller"] == NAME for each in (*build["reports"], *build["rejections"])
    )


@dataclass(slots=True)
class GreedyCaller:
    """All that it does in a run; `taken` is what it got although it was none of its business."""

    stage: Stage
    counts: Counter[str] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # answers, headers included

    async def act(self, act: GreedyAct) -> None:
        """Act once, and return when all requests of it have ended."""
        self.counts[f"greedy: {act.what}"] += 1
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            await getattr(self, f"_{act.what.name.lower()}")(http, act)

    async def _flood(self, http: aiohttp.ClientSession, act: GreedyAct) -> None:
        own = {"X-Auth-Token": GREEDY}
        await asyncio.gather(*(self._upload(http, act.build, own, f"flood-{number}") for number in range(FLOOD)))

    async def _foreign(self, http: aiohttp.ClientSession, act: GreedyAct) -> None:
        own = {"X-Auth-Token": GREEDY}
        await self._upload(http, act.build, own, "foreign")
        await self._upload(http, act.build, own, "foreign", complete="true")
        path = f"/bridge/v1/builds/{act.build.key}"
        await self._ask(f"{Greed.FOREIGN}: read {act.build.key}", http, "GET", path, headers=own)

    async def _made_up(self, http: aiohttp.ClientSession, act: GreedyAct) -> None:
        for number in range(MADE_UP):
            name = f"{act.number}-{number}"
            proofs: tuple[Mapping[str, str], ...] = (
                {"X-Auth-Token": f"MII{name}" + "x" * 500},
                {"Authorization": SIGNED.format(key=f"KEY{name}"), "X-Sdk-Date": "20260101T000000Z"},
                {"Authorization": f"Bearer {name}"},
            )
            await self._upload(http, act.build, proofs[number % len(proofs)], f"made-up-{number}")

    async def _upload(
        self, http: aiohttp.ClientSession, build: Build, headers: Mapping[str, str], name: str, **more: str
    ) -> None:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("files", FOREIGN, filename=f"TEST-{name}.xml", content_type="text/xml")
        params = {"job_id": build.job_id, "build_no": str(build.build_no), "node_id": "greedy", **more}
        what = f"upload {name} to {build.key}"
        await self._ask(what, http, "POST", UPLOAD_PATH, params=params, data=form, headers=headers)

    async def _ask(self, what: str, http: aiohttp.ClientSession, method: str, path: str, **request: object) -> None:
        with suppress(OSError, TimeoutError, aiohttp.ClientError):  # the gateway may have died
            url = self.stage.server_url() + path
            async with http.request(method, url, **request) as answer:  # type: ignore[arg-type]
                self.said.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
                self.counts[f"greedy: answered {answer.status}"] += 1
                if answer.status < 400 and not (method == "GET" and is_its_own(await answer.json())):
                    self.taken.append(what)
