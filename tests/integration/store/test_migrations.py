"""Each migration leaves a ledger that the release before can still use, or notes in it which programs cannot."""

import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import inspect, text

from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.ledger import SCRIPTS, known_revisions

FIRST = "0022"  # which introduced the note
FOLLOWING = [revision for revision in known_revisions() if revision >= FIRST]
CHANGELOG = Path(__file__).parents[3] / "CHANGELOG.md"


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    """Return the file of a ledger with all migrations."""
    path = tmp_path_factory.mktemp("newest") / "ledger.db"
    engine = sqlite_engine(path, begin="BEGIN IMMEDIATE")
    upgrade(engine, "head")
    engine.dispose()
    return path


@pytest.fixture
def connection(newest, tmp_path):
    engine = sqlite_engine(Path(shutil.copy(newest, tmp_path)), begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def upgrade(engine, revision):
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def compatible_from(connection):
    return connection.execute(text("SELECT compatible_from FROM alembic_version")).scalar_one()


def shape(connection):
    """Return what programs rely on: columns, and what is unique, refers to other tables or is checked, by table."""
    inspected = inspect(connection)
    found = {}
    for name in inspected.get_table_names():
        columns = {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in inspected.get_columns(name)
        }
        unique = {tuple(each["column_names"]) for each in inspected.get_unique_constraints(name)}
        unique |= {tuple(each["column_names"]) for each in inspected.get_indexes(name) if each["unique"]}
        references = {
            (column, referred, end)
            for _, _, referred, column, _, _, end, _ in connection.exec_driver_sql(f"PRAGMA foreign_key_list({name})")
        }
        checks = {each["sqltext"] for each in inspected.get_check_constraints(name)}
        found[name] = columns, unique, references, checks
    return found


def narrowed(before, after):
    """Return what a program that relies on `before` may miss, or be hindered by, in `after`."""
    found = []
    for name, (columns, *rules) in after.items():
        if name not in before:  # the program deletes rows of old tables without a look at it
            found += [f"{name} refers to {other}" for _, other, end in rules[1] if other in before and end != "CASCADE"]
            continue
        old_columns, *old_rules = before[name]
        found += [f"{name} has other rules"] if rules != old_rules else []
        found += [f"{name}.{column} differs" for column in old_columns if columns.get(column) != old_columns[column]]
        found += [
            f"{name}.{column} must be named"
            for column, (_, nullable, default) in columns.items()
            if column not in old_columns and not nullable and default is None
        ]
    return found + [f"{name} is gone" for name in before if name not in after]


ADD = (
    "ALTER TABLE builds ADD COLUMN next TEXT",
    "ALTER TABLE builds ADD COLUMN next BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX ix_next ON builds (polls)",
    "DROP INDEX ix_builds_job_id",
    "CREATE TABLE labels (text VARCHAR UNIQUE, build_id BIGINT REFERENCES builds (id) ON DELETE CASCADE)",
)
NARROW = (
    "DROP TABLE audit",
    "ALTER TABLE audit RENAME TO audits",
    "ALTER TABLE builds DROP COLUMN polls",
    "ALTER TABLE builds RENAME COLUMN polls TO polled",
    "CREATE UNIQUE INDEX ux_builds_job ON builds (job_id, build_no)",
    "DROP INDEX ix_rejections_file_key",
    "CREATE TABLE labels (build_id BIGINT REFERENCES builds (id))",
    "ALTER TABLE runs ADD COLUMN build_no BIGINT REFERENCES builds (id)",
    "ALTER TABLE runs ADD COLUMN next BIGINT CHECK (status <> '')",
)


@pytest.mark.parametrize("statement", ADD)
def test_what_only_adds_is_seen_to_narrow_nothing(connection, statement):
    before = shape(connection)
    connection.execute(text(statement))
    assert narrowed(before, shape(connection)) == []


@pytest.mark.parametrize("statement", NARROW)
def test_what_an_older_program_would_miss_is_seen(connection, statement):
    before = shape(connection)
    connection.execute(text(statement))
    assert narrowed(before, shape(connection)) != []


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.add_column(sa.Column("next", sa.BigInteger, nullable=False)),
        lambda batch: batch.alter_column("detail", nullable=True),
        lambda batch: batch.alter_column("person", type_=sa.String(8)),
    ],
    ids=["must be named", "may be null", "is shorter"],
)
def test_a_column_that_older_programs_do_not_fill_or_expect_is_seen(connection, change):
    before = shape(connection)
    with Operations(MigrationContext.configure(connection)).batch_alter_table("audit") as batch:
        change(batch)
    assert narrowed(before, shape(connection)) != []


@pytest.mark.parametrize("revision", FOLLOWING)
def test_a_migration_only_adds_or_notes_which_programs_it_leaves_behind(revision, tmp_path):
    engine = sqlite_engine(tmp_path / "ledger.db", begin="BEGIN IMMEDIATE")
    known = known_revisions()
    upgrade(engine, known[known.index(revision) - 1])
    with engine.begin() as connection:
        before, had_note = shape(connection), revision > FIRST
        noted_before = compatible_from(connection) if had_note else ""
    upgrade(engine, revision)
    with engine.begin() as connection:
        missed, noted = narrowed(before, shape(connection)), compatible_from(connection)
    engine.dispose()
    assert noted in known
    assert noted_before <= noted <= revision
    assert not missed or noted > noted_before, f"{missed}: see docs/decisions/0045-expand-migrate-contract.md"


# -- the last release --------------------------------------------------------------------------------------------------


def schemas_of_releases(changelog):
    """Return the schema of each release, the newest one first; None if its section does not begin with it."""
    sections = re.split(r"(?m)^## ", changelog)[1:]
    found = [re.match(r"[^\n]*\n+Schema (\d{4})\.\n", each) for each in sections if not each.startswith("Unreleased")]
    return [schema and schema[1] for schema in found]


def test_the_last_release_can_use_the_newest_schema(connection):
    released = schemas_of_releases(CHANGELOG.read_text(encoding="utf-8"))
    assert None not in released, "Begin the section of each release with `Schema NNNN.`, its newest migration."
    assert compatible_from(connection) <= (released or known_revisions()[-1:])[0]


def test_the_schema_of_each_release_is_read_from_the_changelog():
    head = "# Changelog\n\n## Unreleased\n\n### Added\n- x\n\n"
    two = "## 0.2.0 (2027-01-02)\n\nSchema 0025.\n\n### Fixed\n- Schema 0024.\n\n## 0.1.0 (2026-12-01)\n\n- y\n"
    assert schemas_of_releases(head) == []
    assert schemas_of_releases(head + two) == ["0025", None]
