"""CodeArts' report summary of builds that were not mirrored: answered from the ledger, since CodeArts has no report.

It follows `show_report_summary` of the official SDK. It knows no upstream; what it does not answer goes on to CodeArts
like every other call.
"""

import re
from typing import Final
from urllib.parse import unquote_plus

from bridge.domain.callers import Caller
from bridge.domain.lifecycle.mirror import TestTotals
from bridge.domain.text_format import rfc3339
from bridge.errors import Unavailable
from bridge.server.http.parameters import MAX_BUILD_NO
from bridge.server.proxy.request_target import RequestTarget, Upstream
from bridge.store.engine.base import Database
from bridge.store.queries import NodeSummary, Summary, report_summary

_PATH: Final = re.compile(r"/v1/report/([0-9A-Za-z]{32})/summary")
_TO_MILLISECONDS: Final = len("2026-01-02T03:04:05.678")  # as CodeArts writes times
_BUILD_NO: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def build_asked(method: str, target: RequestTarget) -> tuple[str, int] | None:
    """Return the build whose report summary is asked for, None for every other call."""
    found = _PATH.fullmatch(target.path)
    if method != "GET" or target.upstream is not Upstream.BUILD or found is None:
        return None
    pairs = (pair.partition("=") for pair in target.query.split("&"))
    numbers = [unquote_plus(value) for name, _, value in pairs if unquote_plus(name) == "build_no"]
    if len(numbers) != 1 or not _BUILD_NO.fullmatch(numbers[0]) or not 1 <= int(numbers[0]) <= MAX_BUILD_NO:
        return None
    return found[1], int(numbers[0])


class LocalReportSummaries:
    """Answers for builds that the ledger knows and did not mirror."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def answer(self, caller: Caller | None, method: str, target: RequestTarget) -> dict[str, object] | None:
        """Return the answer's body; None where CodeArts is to be asked, as for builds of another caller's routes."""
        asked = build_asked(method, target)
        if asked is None or caller is None:
            return None
        try:
            found = await self._database.read(report_summary, *asked)
        except Unavailable:  # CodeArts may know; that we do not is nothing to refuse a call for
            return None
        if found is None or found.mirrored or not _is_of(caller, found):
            return None
        return {"status": "success", "error": None, "result": _result(*asked, found)}


def _is_of(caller: Caller, found: Summary) -> bool:
    return caller.routes is None or found.route in caller.routes


def _result(job_id: str, build_no: int, found: Summary) -> dict[str, object]:
    nodes = [_counted(job_id, build_no, node, counted) for node, counted in found.by_node.items()]
    return {"summary": _counted(job_id, build_no, None, found.all), "sub_summarys": nodes}


def _counted(job_id: str, build_no: int, node: str | None, counted: NodeSummary) -> dict[str, object]:
    totals: TestTotals = counted.totals
    return {
        "job_id": job_id,
        "build_no": build_no,
        "stage_name": node,
        "root_id": None,
        "total": totals.total,
        "success": totals.success,
        "failures": totals.failures,
        "errors": totals.errors,
        "others": totals.others,
        "execution_time": counted.time_us // 1000,
        "genrate_time": f"{rfc3339(counted.last_at)[:_TO_MILLISECONDS]}+00:00",
        "region": None,
        "is_success": not (totals.failures or totals.errors),
    }
