import errno
import os
from pathlib import Path

import pytest

from bridge.store.engine import path_errors
from bridge.store.engine.path_errors import explain_path_error


def explained(path: Path, number: int) -> str:
    return explain_path_error(path, OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("number", "sentences"),
    [
        (
            errno.EROFS,
            "{folder} is on a read-only file system. Use a writable path, such as one on a volume.",
        ),
        (errno.ENOSPC, "The disk of {folder} is full. Free some space, or use another path."),
        (errno.EDQUOT, "The disk of {folder} is full. Free some space, or use another path."),
        (
            errno.ENAMETOOLONG,
            "{folder}/new/spool cannot be used: File name too long. Correct the path.",
        ),
    ],
)
def test_the_nearest_folder_that_exists_is_named(tmp_path, number, sentences):
    assert explained(tmp_path / "new" / "spool", number) == sentences.format(folder=tmp_path)


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOTDIR])
def test_a_file_where_a_folder_must_be_is_named(tmp_path, number):
    (tmp_path / "file").write_text("x")
    sentences = f"{tmp_path}/file is a file, not a folder. Move it away, or use another path."
    assert explained(tmp_path / "file", number) == sentences
    assert explained(tmp_path / "file" / "spool", number) == sentences


def test_a_folder_where_a_file_must_be_is_named(tmp_path):
    assert explained(tmp_path, errno.EISDIR) == f"{tmp_path} is a folder, not a file. Name a file in it."


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_denied_permission_names_user_mode_and_owner(tmp_path, monkeypatch, number):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    owner = folder.stat().st_uid
    names = {owner: f"ops ({owner})", 4711: "4711"}
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(path_errors, "_name", names.__getitem__)
    assert explained(folder / "spool", number) == (
        f"User 4711 may not write to {folder}, which has mode dr-x------ and belongs to user ops ({owner}). "
        "Permit that, or use another path."
    )


def test_a_user_without_a_name_is_shown_by_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4_294_000)
    assert explained(tmp_path, errno.EACCES).startswith(f"User 4294000 may not write to {tmp_path}, which has mode ")


def test_a_relative_path_is_shown_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert explained(Path("data/spool"), errno.EROFS).startswith(f"{tmp_path} is on a read-only file system.")
