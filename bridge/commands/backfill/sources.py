"""The reports of past builds in a folder or an archive, found by a template for their paths.

Names in archives are only data: nothing is unpacked under them. Symbolic links are not followed, so a source leads to
no file outside of it.
"""

import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote

from bridge.domain.routing import canonical_job_id
from bridge.errors import BadParameter, BridgeError
from bridge.server.compression.zip import member_name
from bridge.server.http.file_names import decode_text
from bridge.server.http.requests import MAX_BUILD_NO
from bridge.values import dataclass

DEFAULT_TEMPLATE: Final = "{job}/{no}/…"
REST: Final = ("…", "...", "**")  # as the last part of a template: all reports below
COPY_BYTES: Final = 1 << 20
SUFFIXES: Final = (".xml", ".xml.gz")
"""Of the reports below a folder; a template that names files takes them whatever their names are."""

_FIELDS: Final = {
    "job": r"[0-9A-Za-z]{32}",
    "no": r"0*[1-9][0-9]{0,9}",
    "node": r"[0-9A-Za-z-]{1,32}",
    "branch": r"[^/]+",
    "commit": r"[0-9A-Fa-f]{7,64}",
}
_TOKEN: Final = re.compile(r"\{([^{}]*)\}|\*|[^{*]+|\{")
_DAMAGED: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression method
    RuntimeError,  # a password
    ValueError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PathMatch:
    """What the path of a file states of its build; an empty text is not stated."""

    job_id: str
    build_no: int
    node_id: str
    branch: str
    commit: str
    name: str  # of the report: the path below the folder of its build


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundReport:
    """A file of a build, as bytes of the file at `path`; times in seconds since 1970."""

    match: PathMatch
    place: str  # in the source: two files of a build may have one name
    path: str
    offset: int
    size: int
    modified_at: float


@dataclass(kw_only=True, slots=True)
class LeftOut:
    """Counts files that are not sent."""

    other: int = 0  # their paths do not fit the template
    links: int = 0
    example: str = ""  # the path of one that does not fit

    def add(self, path: str) -> None:
        """Count a file whose path does not fit."""
        self.other += 1
        self.example = self.example or path


class Template:
    """A template of paths: `{job}`, `{no}`, `{node}`, `{branch}`, `{commit}`, and `*` and `**` as in patterns.

    It fits at any depth. If it ends with `…`, all reports below are meant; otherwise it names the files. `job_id` is
    that of all builds if the template has no `{job}`.
    """

    def __init__(self, text: str, *, job_id: str = "") -> None:
        self.text = text
        self._job_id = job_id
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        names = re.findall(r"\{([^{}]*)\}", text)
        for name in names:
            if name not in _FIELDS or names.count(name) > 1:
                raise BadParameter(f"--template: {{{name}}} is unknown or given twice. Use {_known_fields()}.")
        if "no" not in names:
            raise BadParameter("--template: {no}, the number of the build, is missing. Use one like {job}/{no}/….")
        if "job" not in names and not job_id:
            raise BadParameter("--template: {job} is missing. Add it, or name the one job with --job.")
        self._of_folders = parts[-1] in REST or parts[-1].endswith("}")
        if parts[-1] in REST:
            parts.pop()
        last = max(at for at, part in enumerate(parts) if "{" in part)
        before, after = parts[: last + 1], parts[last + 1 :]
        if not self._of_folders and not after:  # the last part with a field names the file
            before, after = parts[:last], parts[last:]
        pattern = "(?:.*?/)??" + "".join(map(_folder_pattern, before))
        rest = "".join(map(_folder_pattern, after[:-1])) + (_pattern(after[-1]) if after else "")
        if self._of_folders:
            rest = f"{rest}/.+" if rest else ".+"
        self._regex = re.compile(f"{pattern}(?P<name>{rest})", re.DOTALL)

    def match(self, path: str) -> PathMatch | None:
        """Return what a path, relative to the source and with slashes, states; None if it is of no report."""
        found = self._regex.fullmatch(path)
        if found is None or (self._of_folders and not path.lower().endswith(SUFFIXES)):
            return None
        fields = found.groupdict(default="")
        build_no = int(fields["no"])
        if build_no > MAX_BUILD_NO or any(part in ("", ".", "..") for part in path.split("/")):
            return None
        return PathMatch(
            job_id=canonical_job_id(fields.get("job", self._job_id)),
            build_no=build_no,
            node_id=fields.get("node", ""),
            branch=unquote(fields.get("branch", "")),
            commit=fields.get("commit", ""),
            name=fields["name"],
        )


def _known_fields() -> str:
    return ", ".join(f"{{{name}}}" for name in _FIELDS)


def _folder_pattern(part: str) -> str:
    return "(?:[^/]+/)*" if part == "**" else f"{_pattern(part)}/"


def _pattern(part: str) -> str:
    pieces = []
    for token in _TOKEN.finditer(part):
        if token[1] is not None:
            pieces.append(f"(?P<{token[1]}>{_FIELDS[token[1]]})")
        else:
            pieces.append("[^/]*" if token[0] == "*" else re.escape(token[0]))
    return "".join(pieces)


# -- folders -----------------------------------------------------------------------------------------------------


def find_in_folder(folder: Path, template: Template, left_out: LeftOut) -> Iterator[FoundReport]:
    """Yield the reports below a folder; raise OSError if a folder cannot be read, because builds would be missing."""
    waiting = [(str(folder), "")]
    while waiting:
        path, relative = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = f"{relative}{entry.name}"
                if entry.is_symlink():
                    left_out.links += 1
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{name}/"))
                elif match := template.match(name) if entry.is_file(follow_symlinks=False) else None:
                    status = entry.stat(follow_symlinks=False)
                    yield FoundReport(
                        match=match,
                        place=name,
                        path=entry.path,
                        offset=0,
                        size=status.st_size,
                        modified_at=status.st_mtime,
                    )
                else:
                    left_out.add(name)


# -- archives ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    name: str
    modified_at: float
    is_link: bool
    open: Callable[[], IO[bytes]] | None  # None: not a file


def unpack_archive(archive: Path, template: Template, out: IO[bytes], left_out: LeftOut) -> Iterator[FoundReport]:
    """Yield the reports in an archive, and write their bytes to `out`, one behind the other.

    Raise BridgeError if the archive is damaged, or of another kind than zip, tar, tar.gz, tar.bz2 and tar.xz.
    """
    offset = 0
    try:
        for member in _members(archive):
            if member.is_link:
                left_out.links += 1
            if member.open is None:
                continue
            path = (member.name if "/" in member.name else member.name.replace("\\", "/")).removeprefix("./")
            match = template.match(path)
            if match is None:
                left_out.add(path)
                continue
            size = 0
            with member.open() as content:
                while chunk := content.read(COPY_BYTES):
                    size += out.write(chunk)
            yield FoundReport(
                match=match, place=path, path=out.name, offset=offset, size=size, modified_at=member.modified_at
            )
            offset += size
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise BridgeError(
            f"{archive} cannot be read as zip, tar or tar.gz: {reason}. Copy it again, or name an unpacked folder."
        ) from error


def _members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        if zipfile.is_zipfile(file):
            yield from _members_of_zip(file)
            return
    with tarfile.open(archive, "r|*", encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            yield _Member(
                name=decode_text(member.name.encode("utf-8", "surrogateescape")),
                modified_at=float(member.mtime),
                is_link=member.issym() or member.islnk(),
                open=partial(_open_in_tar, tar, member) if member.isreg() else None,
            )
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them


def _open_in_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 -- it is a file
    return content


def _members_of_zip(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive comes from a system without file types
            is_file = not member.is_dir() and kind in (0, stat.S_IFREG)
            yield _Member(
                name=member_name(member),
                modified_at=_zip_time(member.date_time),
                is_link=kind == stat.S_IFLNK,
                open=partial(archive.open, member) if is_file else None,
            )


def _zip_time(fields: tuple[int, int, int, int, int, int]) -> float:
    """Return the time of a member, which is that of an unknown time zone; 0 if it is none."""
    try:
        return datetime(*fields).timestamp()  # noqa: DTZ001 -- only the order matters
    except (ValueError, OverflowError):
        return 0.0
