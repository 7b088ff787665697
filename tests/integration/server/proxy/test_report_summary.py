"""Report summaries of builds that were not mirrored come from the ledger; all others from CodeArts."""

import json

import pytest

from bridge.domain.build import DeliveryTarget
from tests.integration.server.proxy.conftest import JOB
from tests.integration.server.proxy.upstream import get
from tests.integration.store.ledger import report, upload

SUMMARY = f"/v1/report/{JOB}/summary?build_no=1"


@pytest.mark.parametrize("query", ["build_no=1", "x=y&build_no=1", "build_no=%31"])
async def test_a_build_that_was_not_mirrored_is_counted_by_the_ledger(proxied, build, ledger, query):
    await ledger.accept(report(), report("b.xml"))

    answer = await proxied.ask(get(f"/v1/report/{JOB}/summary?{query}"))

    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert told["status"] == "success"
    counts = {name: told["result"]["summary"][name] for name in ("total", "success", "failures", "errors", "others")}
    assert counts["total"] == 6
    assert counts["success"] == 6 - counts["failures"] - counts["errors"] - counts["others"]
    assert [part["total"] for part in told["result"]["sub_summarys"]] == [6]
    assert build.requests == []


async def test_mirrored_and_unknown_builds_are_answered_by_codearts(proxied, build, ledger):
    await ledger.accept_together(upload(report(), targets=(DeliveryTarget.TESTNOD, DeliveryTarget.CODEARTS)))

    for query in ("build_no=1", "build_no=2", "build_no=0", "build_no=x", ""):
        await proxied.ask(get(f"/v1/report/{JOB}/summary?{query}"))

    assert len(build.requests) == 5
