"""The two ways to start a program: what most gateways of these tests are started by is as good as the interpreter."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.starting import Start, fork, interpret


async def surroundings(start: Start, folder: Path) -> dict[str, object]:
    """Return what a program started so finds around it."""
    folder.mkdir()
    process = await start(["tests.support.surroundings", "7"], folder / "stdout", folder / "stderr")
    assert await process.wait() == 7, (folder / "stderr").read_text()
    return dict(json.loads((folder / "stdout").read_text()))


@pytest.mark.parametrize("hangup", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_fork_finds_around_it_what_the_interpreter_gives(tmp_path: Path, hangup: signal.Handlers) -> None:
    before = signal.signal(signal.SIGHUP, hangup)  # as under nohup, or not
    try:
        interpreted = await surroundings(interpret, tmp_path / "interpreted")
        assert await surroundings(fork, tmp_path / "forked") == interpreted | {"imported": True}
    finally:
        signal.signal(signal.SIGHUP, before)
