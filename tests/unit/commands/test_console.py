"""What commands print about errors of the operating system."""

import errno
import tempfile

import pytest

from bridge.commands.console import print_failure


def test_a_port_that_is_taken_is_named(capsys):
    reason = "error while attempting to bind on address ('127.0.0.1', 8182): address already in use"
    print_failure(OSError(errno.EADDRINUSE, reason))
    assert capsys.readouterr().err == (
        "Port 8182 on 127.0.0.1 is in use by another program. "
        "Stop that program (`ss -ltnp` lists it), or use another port.\n"
    )


def test_a_machine_without_a_temporary_folder_is_told_what_to_set(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/absent/a", "/absent/b"])
    with pytest.raises(FileNotFoundError) as failed:
        tempfile.gettempdir()
    print_failure(failed.value)
    assert capsys.readouterr().err == (
        "TMPDIR: no temporary folder can be written (/absent/a, /absent/b). Set TMPDIR to a folder that can.\n"
    )


def test_an_error_about_a_path_names_what_is_in_the_way(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file") as failed:
        (tmp_path / "file" / "copy").mkdir()
    print_failure(failed.value)
    assert capsys.readouterr().err == (f"{tmp_path}/file is a file, not a folder. Move it away, or use another path.\n")


def test_any_other_error_is_shown_as_the_system_put_it(capsys):
    print_failure(OSError(errno.EMFILE, "Too many open files"))
    assert capsys.readouterr().err == (
        "The operating system reported: Too many open files. Correct the address, the path, or the file.\n"
    )
