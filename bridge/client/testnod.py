"""TestNod's three calls over a guarded session. The token is sent in the Project-Token header only."""

from collections.abc import Callable
from typing import TypeVar

from yarl import URL

from bridge.client.session import USER_AGENT, GuardedSession, Request
from bridge.domain.build import RunParameters
from bridge.domain.outcomes import FinalizeOutcome, NotSent, OutcomeUnknown, RegisterOutcome, UploadFailedOutcome
from bridge.protocols import testnod
from bridge.protocols.http_response import HttpResponse

Outcome = TypeVar("Outcome")


class TestNod:
    """TestNod at `base_url`; every failure is an outcome, and nothing is retried here."""

    def __init__(self, session: GuardedSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")

    async def register(self, token: str, run_parameters: RunParameters) -> RegisterOutcome:
        """Open an upload in the run that `run_parameters` identify.

        After OutcomeUnknown, an upload may exist whose ids are not known.
        """
        form = testnod.register_body(run_parameters)
        return await self._call("register", token, testnod.REGISTER_PATH, form, testnod.read_register)

    async def finalize(self, token: str, build_id: str) -> FinalizeOutcome:
        """Finalize the run of `build_id` and return its status; safe to repeat."""
        form = testnod.urlencoded(testnod.finalize_form(build_id))
        return await self._call("finalize", token, testnod.FINALIZE_PATH, form, testnod.read_finalize)

    async def upload_failed(
        self, token: str, *, test_run_id: str, upload_id: str, failure_message: str
    ) -> UploadFailedOutcome:
        """Report that the PUT of an upload failed; the outcome's status shows if it succeeded after all."""
        form = testnod.urlencoded(
            testnod.upload_failed_form(test_run_id=test_run_id, upload_id=upload_id, failure_message=failure_message)
        )
        return await self._call("upload_failed", token, testnod.UPLOAD_FAILED_PATH, form, testnod.read_upload_failed)

    async def probe(self, token: str) -> FinalizeOutcome:
        """Finalize a run that never exists: RunMissing means that TestNod and the token work."""
        form = testnod.urlencoded(testnod.finalize_form(testnod.PROBE_BUILD_ID))
        return await self._call("probe", token, testnod.FINALIZE_PATH, form, testnod.read_finalize)

    async def _call(
        self, name: str, token: str, path: str, form: tuple[str, bytes], read: Callable[[HttpResponse], Outcome]
    ) -> Outcome | NotSent | OutcomeUnknown:
        content_type, body = form
        headers = {
            "Project-Token": token,
            "Content-Type": content_type,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        request = Request(method="POST", url=URL(self._base_url + path), headers=headers, body=body, template=path)
        return await self._session.observed(name, self._exchange(request, read))

    async def _exchange(
        self, request: Request, read: Callable[[HttpResponse], Outcome]
    ) -> Outcome | NotSent | OutcomeUnknown:
        response = await self._session.send(request)
        return read(response) if isinstance(response, HttpResponse) else response
