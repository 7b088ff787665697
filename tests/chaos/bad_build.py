"""One bad build: every call about it at one place is answered oddly, while all others are answered as usual."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from aiohttp import web

from bridge.sandbox.faults import CallListener, FaultResponse, Handler, read_answer
from bridge.sandbox.sandbox import Sandbox
from tests.chaos.faults import ODD_ANSWERS
from tests.chaos.plan import BadBuild

ALSO = {"codearts.build_info": "codearts.record_list"}
"""Places that tell of the same: a build of which CodeArts' list of builds tells the end is no bad one."""


@dataclass(slots=True)
class BadAnswers:
    """What the sandbox answers about the bad build until it is `healed`."""

    bad: BadBuild
    sandbox: Sandbox
    given: int = 0
    healed: bool = False

    @property
    def key(self) -> str:
        return self.bad.play.build.key

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let a sandbox that is started meanwhile give these answers."""
        observe = CallListener.observe
        odd = read_answer(ODD_ANSWERS[self.bad.place][self.bad.what])

        def picky(listener: CallListener, where: str, handler: Handler) -> Handler:
            usual = observe(listener, where, handler)
            return self._instead(usual, odd) if where in (self.bad.place, ALSO.get(self.bad.place)) else usual

        with patch.object(CallListener, "observe", picky):
            yield

    def _instead(self, usual: Handler, odd: FaultResponse) -> Handler:
        async def answered(request: web.Request) -> web.StreamResponse:
            if self.healed or not await self._is_about_it(request):
                return await usual(request)
            self.given += 1
            return web.Response(status=odd.status, body=odd.body.encode(), headers=odd.headers)

        return answered

    async def _is_about_it(self, request: web.Request) -> bool:
        if self.bad.place == "codearts.build_info":
            return request.match_info["job_id"] == self.bad.play.build.job_id
        build_id = self.bad.play.build.testnod_build_id  # of replacing runs too: they begin with it
        if self.bad.place == "s3.put":
            _, _, name = request.match_info["key"].rpartition("/")
            upload = self.sandbox.state.runs.upload(int(name.partition(".")[0]))
            return upload is not None and upload.registered.build_id.startswith(build_id)
        if request.content_type == "application/json":
            return build_id in await request.text()
        return any(build_id in str(text) for text in (await request.post()).values())
