"""The folder that `bridge check --repair` writes into: every accepted report as the bridge would send it.

It must not overwrite anything, the files that are checked least of all.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bridge.errors import BridgeError

NO_PARTS: Final = frozenset({"", ".", ".."})
"""Of the name of a file in an archive: they would lead out of the folder."""


class OutputFolder:
    """A new folder, or an empty one, in which reports stand as they stood below their common folder.

    Raises BridgeError where the folder holds anything, and where it cannot be written.
    """

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.written = 0
        self._folder = folder
        parents = [file.parent.resolve() for file in files]
        self._common = Path(os.path.commonpath(parents)) if parents else Path()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BridgeError(f"{folder} is there already and not an empty folder. Name a new one after --repair.")

    def write(self, file: Path, name: str, chunks: Iterator[bytes]) -> None:
        """Write the report `name`, which is `file` itself or stands in it."""
        target = self._target(file, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                out.writelines(chunks)
        except OSError as error:
            raise BridgeError(
                f"{target} cannot be written: {error.strerror or error}. Name another folder after --repair."
            ) from error
        self.written += 1

    def _target(self, file: Path, name: str) -> Path:
        inner = name.removeprefix(str(file))  # "" or !dir/file.xml
        place = file.parent.resolve().relative_to(self._common) / file.name
        parts = f"{place}{inner}".replace("\0", "").split("/")
        return self._folder.joinpath(*(part for part in parts if part not in NO_PARTS))
