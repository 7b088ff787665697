import os
import tempfile
from io import FileIO
from pathlib import Path

import pytest

from bridge.store.blobs import temp_file as module
from bridge.store.blobs.temp_file import TempFolder


async def test_a_folder_of_its_own_goes_with_all_that_is_in_it(tmp_path):
    scratch = TempFolder(tmp_path)
    file = await scratch.create()
    await file.in_thread(FileIO.close)
    scratch.close()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_crash_left_behind_is_swept_and_what_others_use_is_not(tmp_path):
    mine, others, dead = TempFolder(tmp_path), TempFolder(tmp_path), TempFolder(tmp_path)
    for scratch in (others, dead):
        file = await scratch.create()
        await file.in_thread(FileIO.close)  # it stays, as after a crash
    os.close(dead._lock)  # as the end of its process does
    assert await mine.sweep() == 1
    assert not dead.folder.exists()
    assert others.folder.exists()
    assert await mine.sweep() == 0
    mine.close()
    others.close()


@pytest.mark.parametrize("moment", ["before the lock", "while it is swept"])
async def test_a_folder_that_another_process_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch, moment):
    made, held = [], []

    def mkdtemp(**options):
        made.append(Path(make(**options)))
        if len(made) == 1 and moment == "before the lock":
            assert other._sweep() == 0
            assert not made[0].exists()
        elif len(made) == 1:
            held.append(module._lock(made[0]))
        return str(made[-1])

    other = TempFolder(tmp_path)
    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    scratch = TempFolder(tmp_path)
    assert scratch.folder == made[1]
    file = await scratch.create()
    await file.in_thread(FileIO.close)
    assert await other.sweep() == 0
    assert scratch.folder.exists()
    for descriptor in held:
        os.close(descriptor)
    scratch.close()
    other.close()


async def test_no_other_user_can_read_what_comes_in(tmp_path):
    scratch = TempFolder(tmp_path)
    assert scratch.folder.stat().st_mode & 0o077 == 0
    scratch.close()
