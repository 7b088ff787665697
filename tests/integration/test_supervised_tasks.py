"""The loops of a whole gateway: what looks after itself, and is looked after."""

from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import running_gateway


async def test_a_gateway_with_a_ledger_of_its_own_watches_the_clock(tmp_path):
    async with Sandbox() as sandbox, running_gateway(tmp_path, sandbox) as running:
        assert {task.name for task in running.supervisor.tasks} == {
            "dispatcher",
            "circuit_probe",
            "cleanup",
            "clock_skew",
            "status_poller",
            "submission_expiry",
            "notices",
        }
