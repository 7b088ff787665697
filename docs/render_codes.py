"""Renders docs/codes.md: every code that an upload can be answered with, from bridge/errors.py. `make docs` runs it.

It knows what each answer asks of a person; codes, statuses and what they mean are read from the errors themselves.
"""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_codes`

from dataclasses import dataclass
from pathlib import Path

from bridge import errors

PAGE = Path(__file__).with_name("codes.md")

HEAD = """\
# Answers to an upload

This page is rendered from `bridge/errors.py` by `make docs`: change it there, or in `docs/render_codes.py`.

An upload that is kept is answered with 200 and `"status": "success"`. Everything else is answered with one of these
codes, in `error_code` and in `error.code`. `error_msg` says in two sentences what is wrong with what, and what to do.
`X-Request-Id` names the request in the gateway's log, and stands beside the refusal that `bridge why` tells of.

| status | code | when | what to do | again? |
|---|---|---|---|---|
"""

FOOT = """
"again?" says whether the same request may be answered otherwise later. Sending a report again never does harm: one that
is known already is answered with success and delivered once.

Of an upload with good and bad files the good ones are kept, and `complete=true` is noted; the answer says both. Where
the route says `on_invalid = "warn"` such an upload is answered with success, and the bad files are named in `result`.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row: the error, and what the person who meets it should do."""

    error: type[errors.BridgeError]
    remedy: str
    when: str = ""  # empty: the first line of the error's docstring


ANSWERS = (
    Answer(
        errors.BadParameter,
        "Mend the request: the message names the parameter. `build_no` is `INCREASENUM`, not `BUILDNUMBER`; "
        "files go into the form field `files`.",
    ),
    Answer(
        errors.BadReport,
        "Mend what writes the file: the message names it, with the fault and its line. "
        'To let builds pass meanwhile, set `on_invalid = "warn"` for the route.',
    ),
    Answer(
        errors.Unauthenticated,
        "Send a token of the bridge in `X-Auth-Token` or as a bearer token, or sign with a key of the bridge. The "
        "message says which was looked at. One that worked before may have reached its `not_after`; a signature needs "
        "a clock that is right to 15 minutes, and after six failures a key rests for 5 minutes for that address.",
    ),
    Answer(
        errors.Forbidden,
        "Use the token of this project, or have `routes` or `scopes` of the caller widened in `[callers]`.",
    ),
    Answer(errors.NoRoute, "Add a `[[routes]]` table whose `job_id` takes this job."),
    Answer(
        errors.NotFound,
        "Look at the path. Calls to CodeArts go on only where `proxy.enabled` is set, and to services whose endpoint "
        "stands in `[codearts]`.",
    ),
    Answer(errors.MethodNotAllowed, "Use the method that the header `Allow` names: reports come with POST."),
    Answer(
        errors.TooLarge,
        "Split the report, or send the files in several uploads. The limits are `server.max_report_size`, "
        "`max_request_size` and `max_files`.",
    ),
    Answer(errors.UnknownEncoding, "Send it as `gzip`, `deflate`, `br` or `zstd`, or uncompressed."),
    Answer(
        errors.Unavailable,
        "Try again after `Retry-After` seconds: disk space, the ledger, or a restart. `/readyz` of the admin listener "
        "says which.",
    ),
    Answer(
        errors.BadGateway,
        "Of calls passed on to CodeArts only. Try again; if it stays, look at the way there, and at `[codearts]`.",
    ),
    Answer(
        errors.GatewayTimeout,
        "Of calls passed on to CodeArts only. Look whether the call was done, then try again.",
    ),
    Answer(
        errors.BridgeError,
        "Try again. If it stays, look for the request id in the gateway's log: this is a fault of the bridge.",
        when="The bridge failed unexpectedly, and nothing of the request is certain.",
    ),
)
"""In the order of the page: the caller's faults, then the bridge's own."""


def page() -> str:
    """Return the whole of docs/codes.md."""
    return HEAD + "".join(_row(answer) for answer in ANSWERS) + FOOT


def _row(answer: Answer) -> str:
    error = answer.error
    when = answer.when or (error.__doc__ or "").partition("\n")[0]
    again = "perhaps" if error is errors.BridgeError else "yes" if error.retryable else "no"
    return f"| {error.status} | `{error.code}` | {when} | {answer.remedy} | {again} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
