"""Answer CodeArts' report summary from the ledger for builds that were not mirrored, because CodeArts has no report.

The format is that of `show_report_summary` in huaweicloudsdkcodeartsbuild.
"""

import re
from typing import Final
from urllib.parse import unquote_plus

from bridge.domain.callers import Caller
from bridge.domain.lifecycle.mirror import TestTotals
from bridge.domain.text_format import rfc3339
from bridge.errors import Unavailable
from bridge.server.http.requests import MAX_BUILD_NO
from bridge.server.proxy.request_target import RequestTarget, Upstream
from bridge.store.engine.base import Database
from bridge.store.queries import NodeSummary, Summary, report_summary

_PATH: Final = re.compile(r"/v1/report/([0-9A-Za-z]{32})/summary")
_MILLISECONDS: Final = len("2026-01-02T03:04:05.678")  # the precision of CodeArts
_BUILD_NO: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def summary_build(method: str, target: RequestTarget) -> tuple[str, int] | None:
    """Return job id and build number of a request for a report summary, None for every other call."""
    found = _PATH.fullmatch(target.path)
    if method != "GET" or target.upstream is not Upstream.BUILD or found is None:
        return None
    pairs = (pair.partition("=") for pair in target.query.split("&"))
    numbers = [unquote_plus(value) for name, _, value in pairs if unquote_plus(name) == "build_no"]
    if len(numbers) != 1 or not _BUILD_NO.fullmatch(numbers[0]) or not 1 <= int(numbers[0]) <= MAX_BUILD_NO:
        return None
    return found[1], int(numbers[0])


class LocalReportSummaries:
    """Returns summaries of builds that are in the ledger and were not mirrored."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, caller: Caller | None, method: str, target: RequestTarget) -> dict[str, object] | None:
        """Return the response body; None if the call is to be forwarded, for example for builds of other routes."""
        build = summary_build(method, target)
        if build is None or caller is None:
            return None
        try:
            summary = await self._database.read(report_summary, *build)
        except Unavailable:  # CodeArts may have a report
            return None
        if summary is None or summary.mirrored or not _is_allowed(caller, summary):
            return None
        return {"status": "success", "error": None, "result": _result(*build, summary)}


def _is_allowed(caller: Caller, summary: Summary) -> bool:
    return caller.routes is None or summary.route in caller.routes


def _result(job_id: str, build_no: int, summary: Summary) -> dict[str, object]:
    nodes = [_node_result(job_id, build_no, node, counts) for node, counts in summary.by_node.items()]
    return {"summary": _node_result(job_id, build_no, None, summary.all), "sub_summarys": nodes}


def _node_result(job_id: str, build_no: int, node: str | None, counts: NodeSummary) -> dict[str, object]:
    totals: TestTotals = counts.totals
    return {
        "job_id": job_id,
        "build_no": build_no,
        "stage_name": node,
        "root_id": None,
        "total": totals.total,
        "success": totals.success,
        "success_density": totals.success / totals.total if totals.total else 1,
        "failures": totals.failures,
        "errors": totals.errors,
        "others": totals.others,
        "execution_time": counts.time_us // 1000,
        "genrate_time": f"{rfc3339(counts.last_at)[:_MILLISECONDS]}+00:00",
        "region": None,
        "is_success": not (totals.failures or totals.errors),
    }
