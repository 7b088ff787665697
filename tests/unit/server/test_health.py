import os

import pytest

from bridge.errors import Unavailable
from bridge.server.health import RETRY_SECONDS, DiskSpace
from tests.fake_clock import FakeClock

SECOND = 1_000_000
FREE, FLOOR = 1_000 << 20, 600 << 20


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def disk(monkeypatch):
    """Free bytes by folder: the only thing that is asked of the system."""
    free = {"spool": FREE, "ledger": FREE}

    def statvfs(path):
        if path not in free:
            raise FileNotFoundError
        return os.statvfs_result((1, 1, 0, 0, free[path], 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return free


@pytest.fixture
def space(clock, disk):
    return DiskSpace({name: name for name in disk}, min_free=FLOOR, clock=clock)


def refused(space, size=0):
    with pytest.raises(Unavailable) as refusal:
        space.reserve(size)
    assert refusal.value.retry_after_seconds == RETRY_SECONDS
    return str(refusal.value)


def test_uploads_stop_at_the_floor_and_no_sooner(space):
    space.reserve(FREE - FLOOR)
    assert "short of disk space" in refused(space, 1)


def test_what_was_taken_counts_until_the_disk_is_looked_at_again(space, clock, disk):
    space.reserve(FREE - FLOOR)
    disk |= {"spool": FREE - FLOOR // 2}
    clock.advance(SECOND - 1)
    refused(space, 1)
    clock.advance(1)
    space.reserve(FREE - FLOOR - FLOOR // 2)


@pytest.mark.parametrize("place", ["spool", "ledger"])
def test_each_place_keeps_its_floor_and_is_named(space, clock, disk, place):
    disk[place] = FLOOR - 1
    refused(space)
    (shortage,) = space.shortages()
    assert shortage.startswith(f"The {place} has 599 MiB free, less than the 600 MiB of store.min_free_space.")
    disk[place] = FLOOR
    clock.advance(SECOND)
    space.reserve(0)
    assert space.shortages() == []


def test_a_place_that_cannot_be_read_is_said_to_be_that(space, disk):
    del disk["spool"]
    assert "cannot read its free disk space" in refused(space)
    assert space.shortages() == ["The free space of the spool cannot be read. Check the folder that contains it."]
    assert (space.free_bytes("spool"), space.free_bytes("ledger")) == (None, FREE)


def test_a_clock_that_is_set_back_does_not_keep_an_old_look(space, clock, disk):
    disk["spool"] = 0
    refused(space)
    disk["spool"] = FREE
    clock.advance(-3600 * SECOND)
    space.reserve(0)
    assert space.shortages() == []
