"""Reads registrations from a copy of a stopped gateway's ledger: opening the original would repair what a kill left."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One registration as the ledger holds it."""

    id: int
    delivery_id: int
    build: str  # {job_id}/{build_no}
    state: str


def registrations(ledger: Path) -> list[Row]:
    """Return every registration that the ledger at `ledger` holds on disk."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (ledger, ledger.with_name(ledger.name + "-wal")):
            if path.exists():
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / ledger.name)) as connection:
            rows = connection.execute(
                "SELECT registrations.id, delivery_id, builds.key, registrations.state"
                " FROM registrations JOIN builds ON builds.id = build_id ORDER BY registrations.id"
            ).fetchall()
    return [Row(id=row[0], delivery_id=row[1], build=row[2], state=row[3]) for row in rows]
