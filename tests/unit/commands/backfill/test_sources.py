"""Templates of `bridge backfill`, and what it finds in folders and archives."""

import gc
import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands.backfill.sources import LeftOut, Template, find_in_folder, unpack_archive
from bridge.errors import BadParameter, BridgeError

JOB = "68491d9bc97b4774adb93e29b46d2dc6"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"  # no hexadecimal digits: its case counts
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("template", "path", "found"),
    [
        ("{job}/{no}/…", f"{JOB}/7/target/TEST-a.xml", (JOB, 7, "target/TEST-a.xml")),
        ("{job}/{no}/...", f"{JOB}/0042/a.xml", (JOB, 42, "a.xml")),
        ("{job}/{no}/**", f"a/b/{JOB}/7/a.xml.gz", (JOB, 7, "a.xml.gz")),
        ("{job}/{no}", f"{JOB}/7/TEST.XML", (JOB, 7, "TEST.XML")),
        ("{job}/{no}/…", f"{JOB.upper()}/7/a.xml", (JOB, 7, "a.xml")),
        ("{job}/{no}/…", f"{OTHER}/7/a.xml", (OTHER, 7, "a.xml")),
        ("{job}/{no}/…", f"{JOB}/7/{JOB}/8/a.xml", (JOB, 7, f"{JOB}/8/a.xml")),
        ("{job}/builds/{no}/archive/…", f"{JOB}/builds/7/archive/x/a.xml", (JOB, 7, "archive/x/a.xml")),
        ("{job}/{no}/**/junit.xml", f"{JOB}/7/x/y/junit.xml", (JOB, 7, "x/y/junit.xml")),
        ("{job}/{no}/*.report", f"{JOB}/7/a.report", (JOB, 7, "a.report")),
        ("{job}-{no}.xml", f"x/{JOB}-7.xml", (JOB, 7, f"{JOB}-7.xml")),
        ("build-{no}/…", "build-7/a.xml", (JOB, 7, "a.xml")),
        ("{job}/{no}/…", f"{JOB}/7/a.txt", None),
        ("{job}/{no}/…", f"{JOB}/0/a.xml", None),
        ("{job}/{no}/…", f"{JOB}/2147483648/a.xml", None),
        ("{job}/{no}/…", f"{JOB}/x/a.xml", None),
        ("{job}/{no}/…", f"{JOB}0/7/a.xml", None),
        ("{job}/{no}/…", f"../{JOB}/7/a.xml", None),
        ("{job}/{no}/…", f"{JOB}/7/../8/a.xml", None),
        ("{job}/{no}/…", f"/{JOB}/7/a.xml", None),
        ("{job}/{no}/…", f"{JOB}/7", None),
        ("{job}/{no}/*.xml", f"{JOB}/7/x/a.xml", None),
        ("{job}/{no}/a.xml", f"{JOB}/7/aXxml", None),
    ],
)
def test_a_template_finds_job_number_and_name(template: str, path: str, found: tuple[str, int, str] | None) -> None:
    match = Template(template, job_id="" if "{job}" in template else JOB).match(path)
    assert (match and (match.job_id, match.build_no, match.name)) == found


def test_a_template_finds_node_branch_and_commit() -> None:
    match = Template("{branch}/{job}/{no}-{node}/{commit}/…").match(f"feature%2Fx/{JOB}/7-linux/{COMMIT}/t/a.xml")
    assert match is not None
    assert (match.branch, match.node_id, match.commit, match.name) == ("feature/x", "linux", COMMIT, "t/a.xml")


@pytest.mark.parametrize(
    "template", ["", "/", "…", "{job}/…", "{no}", "{job}/{no}/{what}", "{job}/{no}/{no}", "{job}/{no}/{job}/a.xml"]
)
def test_a_template_that_states_no_build_is_rejected(template: str) -> None:
    with pytest.raises(BadParameter, match="--template"):
        Template(template)


@given(st.text(alphabet="{}jobn*/.…a-[(", max_size=20), st.text(alphabet=f"{JOB}/7.xml(", max_size=60))
def test_any_template_either_is_rejected_or_matches_without_a_fault(template: str, path: str) -> None:
    try:
        made = Template(f"{{job}}/{{no}}/{template}")
    except BadParameter:
        return
    made.match(path)
    made.match(f"{JOB}/7/{path}")


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_searched_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / JOB / "1"
    outside.mkdir(parents=True)
    (outside / "a.xml").write_text("<testsuite/>")
    root = tmp_path / "root"
    (root / JOB / "2").mkdir(parents=True)
    (root / JOB / "2" / "a.xml").write_text("<testsuite/>")
    (root / JOB / "2" / "b.log").write_text("log")
    (root / JOB / "2" / "link.xml").symlink_to(outside / "a.xml")
    (root / JOB / "3").symlink_to(outside)
    (root / JOB / "2" / "up").symlink_to(root)
    os.mkfifo(root / JOB / "2" / "pipe.xml")

    left_out = LeftOut()
    found = list(find_in_folder(root, Template("{job}/{no}/…"), left_out))

    assert [(each.place, each.size) for each in found] == [(f"{JOB}/2/a.xml", 12)]
    assert (left_out.other, left_out.links) == (2, 3)


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    folder = tmp_path / JOB / "1"
    folder.mkdir(parents=True)
    name = os.fsdecode(b"caf\xe9.xml")
    (folder / name).write_text("<testsuite/>")

    (found,) = find_in_folder(tmp_path, Template("{job}/{no}/…"), LeftOut())

    assert (found.match.name, Path(found.path).read_text()) == (name, "<testsuite/>")


# -- archives ----------------------------------------------------------------------------------------------------------


def unpacked(archive: Path, left_out: LeftOut | None = None) -> list[tuple[str, bytes]]:
    """Return place and bytes of each report of an archive."""
    out = archive.with_name("unpacked")
    with out.open("wb") as file:
        found = list(unpack_archive(archive, Template("{job}/{no}/…"), file, left_out or LeftOut()))
    content = out.read_bytes()
    return [(each.place, content[each.offset : each.offset + each.size]) for each in found]


def test_a_zip_has_reports_in_any_form_of_name_and_encrypted_other_files(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(f"{JOB}/1/a.xml", "one")
        packed.writestr(f"{JOB}\\2\\b.xml", "two")  # as some packers on Windows write it
        packed.writestr(f"./{JOB}/3/测试.xml", "three")
        packed.mkdir(f"{JOB}/4")
        packed.writestr("other.txt", "other")
        link = zipfile.ZipInfo(f"{JOB}/5/link.xml")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    left_out = LeftOut()

    assert unpacked(archive, left_out) == [
        (f"{JOB}/1/a.xml", b"one"),
        (f"{JOB}/2/b.xml", b"two"),
        (f"{JOB}/3/测试.xml", b"three"),
    ]
    assert (left_out.other, left_out.links, left_out.example) == (1, 1, "other.txt")


def write_tar(archive: Path, mode: str, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(archive, mode) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_file_is_read_whatever_its_compression(mode: str, tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"{JOB}/2/link.xml")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    names = [f"./{JOB}/1/a.xml", f"{JOB}/1/{'long' * 60}.xml", f"{JOB}/2/b.log"]
    members = [(tarfile.TarInfo(name), name.encode()) for name in names]
    write_tar(tmp_path / "a.tar", mode, [*members, (link, b"")])
    left_out = LeftOut()

    found = unpacked(tmp_path / "a.tar", left_out)

    assert [content for _, content in found] == [name.encode() for name in names[:2]]
    assert (left_out.other, left_out.links) == (1, 1)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"\x1f\x8b\x08\0", b"<testsuite/>" * 100])
def test_what_is_no_archive_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BridgeError, match=r"a\.zip cannot be read as zip, tar or tar\.gz"):
        unpacked(tmp_path / "a.zip")


def test_memory_does_not_grow_with_the_members_of_an_archive(tmp_path: Path) -> None:
    names = [f"{JOB}/{number}/a.xml" for number in range(1, 1_001)]
    write_tar(tmp_path / "a.tar", "w", [(tarfile.TarInfo(name), b"<testsuite/>") for name in names])
    used = {}

    tracemalloc.start()
    with (tmp_path / "out").open("wb") as out:
        for found in unpack_archive(tmp_path / "a.tar", Template("{job}/{no}/…"), out, LeftOut()):
            if found.match.build_no in (200, 1_000):
                gc.collect()
                used[found.match.build_no] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert used[1_000] < used[200] + 100_000
