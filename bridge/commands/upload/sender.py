"""Send uploads to the gateway, several at once, and again while the gateway cannot take them."""

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import field, replace
from enum import StrEnum
from typing import Any, Final, cast

from bridge.commands.upload.batches import Batch, Body, body_of
from bridge.commands.upload.gateway_client import Answer, GatewayAway, GatewayClient
from bridge.commands.upload.kept_uploads import KeptUpload
from bridge.errors import BadParameter, BadReport, NoRoute, TooLarge, UnknownEncoding
from bridge.values import dataclass

CONNECTIONS: Final = 4  # requests at once
FIRST_DELAY_SECONDS: Final = 0.5
MAX_DELAY_SECONDS: Final = 30.0
JITTER: Final = (0.75, 1.25)

RETRIED: Final = frozenset({408, 425, 429, *range(500, 600)})
FINAL_CODES: Final = frozenset(error.code for error in (BadParameter, BadReport, NoRoute, TooLarge, UnknownEncoding))
"""Of rejections that concern the files, which the gateway has recorded. After other ones, such as that of a token, the
files can be sent again."""

FileRow = Mapping[str, Any]
"""A file in the gateway's answer: name, status, tests, failures, errors, skipped, code, reason, message."""


class RequestOutcome(StrEnum):
    """What happened to a request."""

    ANSWERED = "answered"  # `files` has the verdict for each
    REJECTED = "rejected"  # as a whole
    AWAY = "away"  # not answered until the time was over


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The end of one request."""

    batch: Batch
    outcome: RequestOutcome
    files: Sequence[FileRow] = ()
    message: str = ""  # of a rejection, or why the gateway is away
    failed: bool = False  # the gateway answered that the upload failed, because of files that it rejected
    code: str = ""


@dataclass(kw_only=True)
class Sender:
    """Sends batches until `deadline`, a time of time.monotonic. `note` prints a sentence, `advance` counts files."""

    client: GatewayClient
    deadline: float
    note: Callable[[str], None]
    advance: Callable[[int], None] = lambda _: None
    _noted: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, batches: Sequence[Batch]) -> list[Result]:
        """Send all batches; one that only states that a build is complete goes last, if all of its files were answered.

        A rejection of files is such an answer: the build is complete without them.
        """
        files = [batch for batch in batches if batch.parts or not batch.complete]
        results = self._send_at_once(files)
        for result in [each for each in results if each.batch.complete and each.code == TooLarge.code]:
            results += self._send_at_once([replace(result.batch, parts=(), entry=None)])  # the build is complete
        for batch in (batch for batch in batches if batch not in files):
            of_build = [result for result in results if result.batch.build == batch.build]
            if all(map(_is_answer, of_build)):
                results += self._send_at_once([batch])
            else:
                reason = "some reports of the build could not be sent"
                results.append(_settled(Result(batch=batch, outcome=RequestOutcome.AWAY, message=reason)))
        return results

    def _send_at_once(self, batches: Sequence[Batch]) -> list[Result]:
        """Send batches in threads that end with the process: a name that is not resolved must not delay its end."""
        work: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        done: queue.SimpleQueue[list[Result] | Exception] = queue.SimpleQueue()
        for batch in batches:
            work.put(batch)

        def run() -> None:
            while True:
                try:
                    batch = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put(self._send_one(batch))
                except Exception as error:  # noqa: BLE001 -- raised in the main thread
                    done.put(error)

        for _ in range(min(CONNECTIONS, len(batches))):
            threading.Thread(target=run, daemon=True).start()
        results: list[Result] = []
        for _ in batches:
            one = done.get()
            if isinstance(one, Exception):
                raise one
            results += one
        order = {id(part): at for at, part in enumerate(part for batch in batches for part in batch.parts)}
        return sorted(results, key=lambda result: order[id(result.batch.parts[0])] if result.batch.parts else -1)

    def _send_one(self, batch: Batch) -> list[Result]:
        result = self._attempts(batch)
        if result.outcome is RequestOutcome.REJECTED and result.code == TooLarge.code and len(batch.parts) > 1:
            middle = len(batch.parts) // 2
            if isinstance(batch.entry, KeptUpload):
                batch.entry.split()
            halves = [
                replace(batch, parts=batch.parts[:middle], complete=False),
                replace(batch, parts=batch.parts[middle:]),
            ]
            return [each for half in halves for each in self._send_one(half)]
        self.advance(len(batch.parts))
        return [_settled(result)]

    def _attempts(self, batch: Batch) -> Result:
        try:
            body = body_of(batch.parts) if batch.parts else None
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror or error}. Upload it when it is complete."
            return Result(batch=batch, outcome=RequestOutcome.REJECTED, message=message)
        with closing(body.file) if body else nullcontext():
            return self._until_answered(batch, body)

    def _until_answered(self, batch: Batch, body: Body | None) -> Result:
        delay = FIRST_DELAY_SECONDS
        while True:
            wait = None
            try:
                if body is not None:
                    body.file.seek(0)
                answer = self.client.post(
                    batch.query,
                    body.file if body else None,
                    {**batch.trace_headers, **(body.headers if body else {})},
                    deadline=self.deadline,
                )
            except GatewayAway as error:
                reason = str(error)
                if error.final:
                    return Result(batch=batch, outcome=RequestOutcome.AWAY, message=reason)
            else:
                result = _read(batch, answer)
                if result.outcome is not RequestOutcome.AWAY:
                    return replace(result, message=self.client.without_token(result.message))
                reason, wait = self.client.without_token(result.message), answer.retry_after
            pause = max(delay * random.uniform(*JITTER), (wait or 0) * random.uniform(1, JITTER[1]))  # noqa: S311
            if time.monotonic() + pause >= self.deadline:
                return Result(batch=batch, outcome=RequestOutcome.AWAY, message=reason)
            self._note_once(
                f"The gateway cannot take the reports yet: {reason}. The next attempt is in {pause:.0f} s.", reason
            )
            time.sleep(pause)
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _note_once(self, sentence: str, reason: str) -> None:
        with self._lock:
            if reason not in self._noted:
                self._noted.add(reason)
                self.note(sentence)


def _is_answer(result: Result) -> bool:
    """Return whether the same files need not be sent again."""
    return result.outcome is RequestOutcome.ANSWERED or (
        result.outcome is RequestOutcome.REJECTED and result.code in FINAL_CODES
    )


def _settled(result: Result) -> Result:
    if result.batch.entry is not None:
        result.batch.entry.settle(answered=_is_answer(result))
    return result


def _read(batch: Batch, answer: Answer) -> Result:
    """Return what an answer means; AWAY if the same request may succeed later."""
    content = answer.content or {}
    is_gateway = content.get("status") in ("success", "fail")
    if answer.status == 413 and not is_gateway:  # of a proxy in front of the gateway
        too_large = "A proxy in front of the gateway rejects requests of this size. Raise its limit for request bodies."
        return Result(batch=batch, outcome=RequestOutcome.REJECTED, code=TooLarge.code, message=too_large)
    if answer.status in RETRIED or (answer.status == 200 and not is_gateway):
        fault = f"it answered {answer.status}, {_message(content).rstrip('.') or answer.what}"
        return Result(batch=batch, outcome=RequestOutcome.AWAY, message=fault)
    files = content.get("files")
    rows = [cast(FileRow, row) for row in files if isinstance(row, dict)] if isinstance(files, list) else []
    if answer.status == 200 and content["status"] == "success":
        rows = rows or [{"name": part.name, "status": "accepted"} for part in batch.parts]
        return Result(batch=batch, outcome=RequestOutcome.ANSWERED, files=rows)
    if rows:
        return Result(batch=batch, outcome=RequestOutcome.ANSWERED, files=rows, failed=True)
    message = _message(content)
    if 300 <= answer.status < 400:
        message = (
            f"The server answers with a redirect to {answer.location[:200]}. Set BRIDGE_URL to the gateway itself."
        )
    elif not message:
        message = f"The server answered {answer.status} ({answer.what}), and not as a gateway. Check BRIDGE_URL."
    return Result(
        batch=batch, outcome=RequestOutcome.REJECTED, message=message, code=str(content.get("error_code") or "")
    )


def _message(content: Mapping[str, Any]) -> str:
    return str(content.get("error_msg") or "")
