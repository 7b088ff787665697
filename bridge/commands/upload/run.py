"""Runs `bridge upload`: finds the files, validates them, sends them, and prints what happened."""
# ruff: noqa: PLC0415 -- parts that a usual upload does not need are imported when they are

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bridge.commands.upload.batches import Batch, Part, batches_of
from bridge.commands.upload.ci_build import CiBuild
from bridge.commands.upload.files import Exclusions, FoundFile, FoundFiles, find_files, split_arguments
from bridge.commands.upload.gateway_client import GatewayAway, GatewayClient
from bridge.commands.upload.kept_uploads import KeptUploads
from bridge.commands.upload.report import TAKEN, UploadReport, UploadStatus, as_json, lines_of
from bridge.commands.upload.sender import RequestOutcome, Result, Sender
from bridge.commands.upload.usual_places import find_in_usual_places
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import WHOLE_SIZE, validate_bytes, validate_source
from bridge.domain.text_format import counted, printable
from bridge.errors import BridgeError
from bridge.values import dataclass

EXIT_SENT: Final = 0
EXIT_REJECTED: Final = 1
EXIT_AWAY: Final = 3

CLOCK_TOLERANCE_SECONDS: Final = 60.0
"""Between the clock of the CI system and that of the machine that wrote the files."""

STATUS_SECONDS: Final = 5.0  # for the question after an upload; the build step waits for it
FIRST_POLL_SECONDS: Final = 0.5
MAX_POLL_SECONDS: Final = 5.0
MAX_EARLIER: Final = 100  # kept uploads that a run sends: each is an open file
FINAL_STATES: Final = ("finalized", "no_run")

NOT_JUNIT: Final = "not_junit"
HEAD_BYTES: Final = 512
TAR_MAGIC: Final = slice(257, 262), b"ustar"
MAX_TOKEN_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadOptions:
    """The options of the command; times in seconds."""

    url: str | None
    token_file: Path | None
    complete: bool
    newer_than_build: bool
    marker: Path | None
    spool: Path | None
    time_budget: float
    wait: bool
    dry_run: bool
    json_wanted: bool
    fail_on_failures: bool


def upload(arguments: Sequence[str], build: CiBuild, options: UploadOptions, environ: Mapping[str, str]) -> int:
    """Upload the files that `arguments` stand for; return the exit code. Raise BridgeError if the options are wrong."""
    note = Notes(json_wanted=options.json_wanted)
    deadline = time.monotonic() + options.time_budget
    client = None if options.dry_run else open_client(options.url, options.token_file, environ)
    found, older = _find(arguments, build, options, note)
    report = UploadReport(build=build, excluded=found.excluded, older=older)
    parts = _validate(found.files, report, note)
    if client is None:
        return _checked(report, options, found=bool(parts))
    results = _send(client, parts, report, options, deadline, note)
    _judge(results, report)
    _follow(client, report, options, deadline)
    code = _exit_code(report, options)
    _print(report, options, code)
    return code


class Notes:
    """Sentences about the progress, on stderr; on a terminal also a bar. With --json there is neither."""

    def __init__(self, *, json_wanted: bool) -> None:
        self._silent = json_wanted
        self._print: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: T201

    def __call__(self, sentence: str) -> None:
        if not self._silent:
            self._print(printable(sentence))

    @contextmanager
    def bar(self, total: int) -> Any:
        """Yield a function that counts files that are done."""
        if self._silent or total < 2 or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import Progress

        before = self._print
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Sending", total=total)
            self._print = lambda text: progress.console.print(text, markup=False, highlight=False)
            try:
                yield lambda count: progress.advance(task, count)
            finally:
                self._print = before


def open_client(url: str | None, token_file: Path | None, environ: Mapping[str, str]) -> GatewayClient:
    """Return a client with the token of `token_file`, or else of BRIDGE_TOKEN; raise BridgeError if one is unusable."""
    if not url:
        raise BridgeError("The address of the gateway is missing. Set BRIDGE_URL, such as https://bridge.example.com.")
    return GatewayClient(url, _token(token_file, environ))


def _token(token_file: Path | None, environ: Mapping[str, str]) -> str:
    if token_file is None:
        return environ.get("BRIDGE_TOKEN", "").strip()
    with token_file.open("rb") as file:
        content = file.read(MAX_TOKEN_BYTES + 1)
    if len(content) > MAX_TOKEN_BYTES:
        raise BridgeError(f"{token_file} is too large for a token. Name the file that contains only the token.")
    return content.decode("utf-8", "replace").strip()


# -- files -------------------------------------------------------------------------------------------------------


def _find(arguments: Sequence[str], build: CiBuild, options: UploadOptions, note: Notes) -> tuple[FoundFiles, int]:
    """Return the files to send, and how many are older than the build."""
    since = _start(build, options)
    patterns, excluded = split_arguments(arguments)
    if patterns:
        found = find_files(patterns, Exclusions(excluded))
        for pattern in found.missing:
            note(f"{pattern}: no file matches. Check that the tests ran, and where they write to.")
    else:
        found, sentence = find_in_usual_places(excluded)
        note(sentence)
    if since is None:
        return found, 0
    files = [file for file in found.files if Path(file.path).stat().st_mtime >= since]
    older = len(found.files) - len(files)
    if older:
        note(f"{counted(older, 'file')} of earlier builds left out.")
    return replace(found, files=files), older


def _start(build: CiBuild, options: UploadOptions) -> float | None:
    """Return the time of the oldest files to send; None for files of any age."""
    if options.marker is not None:
        return options.marker.stat().st_mtime
    if not options.newer_than_build:
        return None
    if build.started_at is None:
        raise BridgeError(
            "The start of the build is not known, because no variable has it. "
            "Create a file when the build begins, and name it with --marker."
        )
    return build.started_at - CLOCK_TOLERANCE_SECONDS


def _validate(files: Sequence[FoundFile], report: UploadReport, note: Notes) -> list[Part]:
    """Return what to send, and add what is known of each file to the report.

    A file that is invalid is sent, too: its route may repair it, and the gateway keeps it for its operator. XML of
    another kind is sent only if the file was named.
    """
    parts = []
    for file in files:
        row = _row(file)
        report.files.append(row)
        if row["status"] == "rejected":
            note(f"{file.name} is not a valid report: {row['message']}")
        if row["status"] != "skipped" and row["size"] is not None:
            parts.append(Part(name=file.name, path=file.path, size=row["size"]))
    return parts


def _row(file: FoundFile) -> dict[str, Any]:
    row: dict[str, Any] = {"name": file.name, "status": "accepted", "size": None, "message": None}
    try:
        with Path(file.path).open("rb") as opened:
            row["size"] = os.fstat(opened.fileno()).st_size
            data = opened.read(WHOLE_SIZE + 1)
            if not is_plain(data):
                return row | _archive_row(file)
            if len(data) <= WHOLE_SIZE:
                result = validate_bytes(data)
            else:
                opened.seek(0)
                result = validate_source(lambda: iter(lambda: opened.read(WHOLE_SIZE), b""))
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}. Correct the path, or the permissions of the file."
        return row | {"status": "rejected", "message": reason, "reason": "unreadable", "size": None}
    if isinstance(result, Invalid):
        status = "skipped" if result.reason == NOT_JUNIT and not file.named else "rejected"
        return row | {"status": status, "message": f"{result.found} {result.remedy}", "reason": result.reason}
    counts = result.counts
    names = ("tests", "failures", "errors", "skipped")
    return row | {name: getattr(counts, name) for name in names}


def is_plain(data: bytes) -> bool:
    """Return whether a file is XML at first sight, and not compressed or an archive."""
    place, magic = TAR_MAGIC
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"") and data[place] != magic


def _archive_row(file: FoundFile) -> dict[str, Any]:
    """Return the result for an archive, a compressed file, or what is no XML at all, as `bridge check` has it."""
    from bridge.commands.check.inputs import SourceFile
    from bridge.commands.check.results import FileStatus, check_source

    rows = list(check_source(SourceFile(path=Path(file.path), named=file.named), None))
    rejected = [row.reason for row in rows if row.status is FileStatus.REJECTED]
    counts = [row.counts for row in rows if row.counts is not None]
    sums = {name: sum(getattr(each, name) for each in counts) for name in ("tests", "failures", "errors", "skipped")}
    if rejected:
        return {"status": "rejected", "message": rejected[0], **(sums if counts else {})}
    return {"status": "accepted" if counts else "skipped", "message": None, **sums}


def _checked(report: UploadReport, options: UploadOptions, *, found: bool) -> int:
    report.status = UploadStatus.CHECKED
    rejected = any(row["status"] == "rejected" for row in report.files)
    failed = options.fail_on_failures and report.failed_tests > 0
    code = EXIT_REJECTED if rejected or failed or not found else EXIT_SENT
    if not found:
        report.problems.append("There is no report to send. Check that the tests ran, and where they write to.")
    _print(report, options, code)
    return code


# -- sending -----------------------------------------------------------------------------------------------------


def _send(
    client: GatewayClient,
    parts: Sequence[Part],
    report: UploadReport,
    options: UploadOptions,
    deadline: float,
    note: Notes,
) -> list[Result]:
    """Send what earlier runs have kept, then the files of this run; return the results of the latter.

    Copies of this run's files are written first, so that a run that is killed loses none.
    """
    build = report.build
    batches = batches_of(build.parameters(), parts, complete=options.complete, trace_headers=build.trace_headers)
    earlier: list[Batch] = []
    if options.spool is not None:
        earlier, batches = _kept(options.spool, batches, note)
    with note.bar(sum(len(batch.parts) for batch in (*earlier, *batches))) as advance:
        sender = Sender(client=client, deadline=deadline, note=note, advance=advance)
        if earlier:
            count = sum(len(batch.parts) for batch in earlier)
            note(f"{counted(count, 'file')} of earlier runs {'is' if count == 1 else 'are'} sent first.")
            for result in sender.send(earlier):
                report.earlier += result.files
                if result.outcome is not RequestOutcome.ANSWERED:
                    report.problems.append(f"Files of an earlier run were not accepted: {result.message}")
        results = sender.send(batches)
    if options.spool is not None:
        report.kept = sum(
            len(result.batch.parts)
            for result in results
            if result.outcome is RequestOutcome.AWAY and result.batch.entry is not None
        )
    return results


def _kept(folder: Path, batches: list[Batch], note: Notes) -> tuple[list[Batch], list[Batch]]:
    """Return the uploads that earlier runs have kept, and the `batches` of this run with copies."""
    try:
        kept = KeptUploads(folder)
        with closing(kept.earlier()) as found:
            earlier = list(islice(found, MAX_EARLIER))
        return earlier, [kept.keep(batch) if batch.parts or batch.complete else batch for batch in batches]
    except OSError as error:
        note(f"{folder} cannot keep files ({error.strerror or error}), so the reports are sent without copies.")
        return [], batches


def _judge(results: Sequence[Result], report: UploadReport) -> None:
    """Replace what validation found by what the gateway answered."""
    unsent = [row for row in report.files if row["status"] == "skipped" or row["size"] is None]
    local = {row["name"]: row for row in report.files}
    files: list[Mapping[str, Any]] = []
    for result in results:
        if result.outcome is RequestOutcome.ANSWERED:
            files += result.files
            continue
        status = "not sent" if result.outcome is RequestOutcome.AWAY else "rejected"
        files += [{**local[part.name], "status": status, "message": None} for part in result.batch.parts]
        cause = "The gateway is away" if result.outcome is RequestOutcome.AWAY else "The gateway rejected the upload"
        problem = f"{cause}: {result.message}"
        if problem not in report.problems:
            report.problems.append(problem)
    report.files = [*files, *unsent]
    if any(result.outcome is RequestOutcome.AWAY for result in results):
        report.status = UploadStatus.AWAY
    elif any(
        [
            *(result.failed or result.outcome is RequestOutcome.REJECTED for result in results),
            *(row["status"] == "rejected" for row in unsent),  # a route may pardon what it has rejected, with "warn"
        ]
    ):
        report.status = UploadStatus.REJECTED


# -- afterwards --------------------------------------------------------------------------------------------------


def _follow(client: GatewayClient, report: UploadReport, options: UploadOptions, deadline: float) -> None:
    """Ask for the build once, or with `--wait` until it is finalized; set its state and the address of its run."""
    if report.status is UploadStatus.AWAY or not any(row["status"] in TAKEN for row in report.files):
        return
    until = deadline if options.wait else min(deadline, time.monotonic() + STATUS_SECONDS)
    pause = FIRST_POLL_SECONDS
    problem = "the time was over"
    state = ""
    while True:
        try:
            answer = client.build(report.build.job_id, report.build.build_no, deadline=until)
        except GatewayAway as error:
            problem = str(error)
        else:
            if answer.status in (401, 403, 404) and options.wait:
                message = (answer.content or {}).get("error_msg") or f"status {answer.status}"
                report.problems.append(f"The build cannot be followed: {message}")
                report.status = UploadStatus.REJECTED
                return
            if answer.status == 200 and answer.content is not None:
                state, report.test_run_url = _state(answer.content)
                report.build_state = state or None
        if not options.wait or state in FINAL_STATES:
            return
        if time.monotonic() + pause >= deadline:
            report.problems.append(f"The run is not finalized yet ({problem}). Ask `bridge why` about the build.")
            report.status = UploadStatus.REJECTED
            return
        time.sleep(pause)
        pause = min(2 * pause, MAX_POLL_SECONDS)


def _state(build: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the state of a build, and the address of its newest run."""
    runs = (build.get("testnod") or {}).get("runs") or [{}]
    url = runs[-1].get("test_run_url")
    return str(build.get("state")), str(url) if url else None


def _exit_code(report: UploadReport, options: UploadOptions) -> int:
    match report.status:
        case UploadStatus.AWAY:
            return EXIT_AWAY
        case UploadStatus.REJECTED:
            return EXIT_REJECTED
        case _:
            return EXIT_REJECTED if options.fail_on_failures and report.failed_tests else EXIT_SENT


def _print(report: UploadReport, options: UploadOptions, code: int) -> None:
    if options.json_wanted:
        print(json.dumps(as_json(report, code), indent=2))  # noqa: T201
        return
    for line in lines_of(report):
        print(line)  # noqa: T201
    if report.status is UploadStatus.AWAY:
        print(_about_kept(report, options))  # noqa: T201


def _about_kept(report: UploadReport, options: UploadOptions) -> str:
    if report.kept:
        return f"{counted(report.kept, 'file')} kept in {options.spool}: the next run with --spool sends them first."
    return "Nothing is kept. Run the command again, or with --spool DIR to keep the files for a later run."
