"""Render docs/codes.md: every code that an upload can be answered with, from bridge/errors.py. Run by `make docs`.

The remedies are written here; codes, statuses and meanings come from the error classes.
"""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_codes`

from dataclasses import dataclass
from pathlib import Path

from bridge import errors

PAGE = Path(__file__).with_name("codes.md")

HEAD = """\
# Answers to an upload

This page is rendered from `bridge/errors.py` by `make docs`. Change the text there or in `docs/render_codes.py`.

An accepted upload is answered with 200 and `"status": "success"`. Everything else is answered with one of these codes,
in `error_code` and in `error.code`. `error_msg` names the file or parameter and the fault in its first sentence, and
what to do in its second; at most 20 files are named, the others are counted. `error.reason` is a short class for
programs, such as `not_junit`, `encoding` or `expired_token`. `X-Request-Id` identifies the request in the gateway's log
and in the rejection that `bridge why` shows.

- **`detail=files`** in the query or the form adds `files` to the answer: `name`, `status` (`accepted`, `duplicate`,
  `requeued`, `rejected` or `skipped`), the counts of a report, and `code`, `reason` and `message` of another file.
- **`Accept: text/plain`** gets one line for each file and one for the result, for a CI log.
- **A client that shows only the status** (wget, busybox, urllib): `bridge why JOB NO` and the build's status
  (`/bridge/v1/builds/…`) give the reason, if the query has a valid `job_id` and `build_no`.

| status | code | when | what to do | retry? |
|---|---|---|---|---|
"""

FOOT = """
"retry?" states whether the same request may succeed later. Sending a report again is always safe: a duplicate is
answered with success and delivered once.

If an upload has valid and invalid files, the valid ones are stored and `complete=true` is recorded; the answer names
both. If the route has `on_invalid = "warn"`, such an upload is answered with success, and the invalid files are named
in `result`.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row: the error, and what the caller or operator should do."""

    error: type[errors.BridgeError]
    remedy: str
    when: str = ""  # empty: the first line of the error's docstring


ANSWERS = (
    Answer(
        errors.BadParameter,
        "Correct the request: the message names the parameter. `build_no` is `INCREASENUM`, not `BUILDNUMBER`; "
        "files belong in the form field `files`.",
    ),
    Answer(
        errors.BadReport,
        "Correct the tool that writes the file: the message names the file, the fault and its line. "
        'To let builds pass meanwhile, set `on_invalid = "warn"` for the route.',
    ),
    Answer(
        errors.Unauthenticated,
        "Send a token of the bridge in `X-Auth-Token` or as a bearer token, or sign with a key of the bridge. The "
        "message states which was checked, and to the holder of an expired token or key, when it expired. A signature "
        "needs a clock that is right to 15 minutes, and after six failures a key is locked for 5 minutes for that "
        "address.",
    ),
    Answer(
        errors.Forbidden,
        "Use the token of this project, or let an operator extend `routes` or `scopes` of the caller in `[callers]`.",
    ),
    Answer(errors.NoRoute, "Add a `[[routes]]` table whose `job_id` matches this job."),
    Answer(
        errors.WrongPath,
        "Upload with POST to `/v1/report/junit/report/upload`. Other paths are forwarded to CodeArts; one that has a "
        "word like `upload` beside one like `junit` or `report` is not.",
    ),
    Answer(
        errors.NotFound,
        "Check the path. Calls to CodeArts are forwarded only if `proxy.enabled` is set, to services whose endpoint "
        "is set in `[codearts]`.",
    ),
    Answer(errors.MethodNotAllowed, "Use a method of the `Allow` header: reports are sent with POST."),
    Answer(
        errors.TooLarge,
        "Split the report, or send the files in several uploads. The limits are `server.max_report_size`, "
        "`max_request_size` and `max_files`.",
    ),
    Answer(
        errors.UnknownEncoding,
        "Compress it with `gzip`, `deflate`, `br` or `zstd`, or not at all. A form part may be in `base64` or "
        "`quoted-printable`.",
    ),
    Answer(
        errors.Unavailable,
        "Retry after `Retry-After` seconds. The cause is disk space, the ledger, the spool, or a restart; `/readyz` of "
        "the admin listener names it.",
    ),
    Answer(
        errors.BadGateway,
        "Only for calls forwarded to CodeArts. Retry; if it persists, check the network and `[codearts]`.",
    ),
    Answer(
        errors.GatewayTimeout,
        "Only for calls forwarded to CodeArts. Check whether the call had its effect, then retry.",
    ),
    Answer(
        errors.BridgeError,
        "Retry. If it persists, search the gateway's log for the request id and report it as a bug of the bridge.",
        when="The bridge failed unexpectedly, and nothing of the request is certain.",
    ),
)
"""In the order of the page: errors of the caller, then of the bridge."""


def page() -> str:
    """Return the content of docs/codes.md."""
    return HEAD + "".join(_row(answer) for answer in ANSWERS) + FOOT


def _row(answer: Answer) -> str:
    error = answer.error
    when = answer.when or (error.__doc__ or "").partition("\n")[0]
    retry = "perhaps" if error is errors.BridgeError else "yes" if error.retryable else "no"
    return f"| {error.status} | `{error.code}` | {when} | {answer.remedy} | {retry} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
