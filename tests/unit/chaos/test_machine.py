"""How busy the machine is, which a run of chance cannot change."""

from tests.chaos.faults import Troubles
from tests.chaos.machine import BUSY, Machine
from tests.support.processes import until

SECOND = 1_000_000


def test_a_busy_machine_is_in_trouble_and_its_seconds_count_less():
    machine = Machine(Troubles())
    for at, slowness in ((1, 1.0), (2, 2.0), (3, 2 * BUSY), (4, 1.0)):
        machine.measured(slowness, at)

    assert machine.fair_seconds == 0.5 + 1 / (2 * BUSY) + 1
    assert (machine.slowest, machine.busy_seconds) == (2 * BUSY, 1)
    assert not machine.troubles.met(("machine",), 0, 2 * SECOND - 1)
    assert machine.troubles.met(("machine",), 2 * SECOND, 3 * SECOND)
    assert not machine.troubles.met(("machine",), 3 * SECOND + 1, 4 * SECOND)


async def test_a_process_measures_until_the_watch_ends():
    machine = Machine(Troubles())
    async with machine.watched():
        await until(lambda: machine.fair_seconds > 0, "a measurement")

    assert machine.slowest >= 1
