"""Bring a ledger's schema to what this code was written for, or say why not.

It knows no table: migrations/versions holds one file a step. A ledger is never taken back to an older schema.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, select

from bridge.errors import SchemaMismatch

SCRIPTS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x62726964676500  # "bridge": the advisory lock of PostgreSQL that migrations are run under


def migrate(engine: Engine) -> str:
    """Run the migrations that are missing, all or none; return the revision that the ledger is at then."""
    with engine.begin() as connection:
        return migrate_over(connection)


def migrate_over(connection: Connection) -> str:
    """Do the same in the transaction of `connection`; whoever migrates the same ledger at once waits for its end."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    config = _config(connection)
    _refuse_newer(connection, config)
    if revision_of(connection) != newest_revision():
        command.upgrade(config, "head")
    return newest_revision()


def outdated(engine: Engine) -> str | None:
    """Return the revision that a migration would begin from; None where there is no schema yet, or nothing to do."""
    with engine.connect() as connection:
        _refuse_newer(connection, _config(connection))
        revision = revision_of(connection)
    return revision if revision != newest_revision() else None


def check(engine: Engine) -> None:
    """Raise SchemaMismatch unless the ledger is at this code's schema."""
    with engine.connect() as connection:
        check_over(connection)


def check_over(connection: Connection) -> None:
    """Do the same over `connection`."""
    _refuse_newer(connection, _config(connection))
    if revision_of(connection) != newest_revision():
        raise SchemaMismatch("The ledger's schema is older than this program. Run `bridge migrate` first.")


def newest_revision() -> str:
    """Return the revision that this code was written for."""
    head = ScriptDirectory.from_config(_config(None)).get_current_head()
    if head is None:
        raise SchemaMismatch("This program came without its migrations. Install it again.")
    return head


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def revision_of(connection: Connection) -> str | None:
    """Return the revision that the ledger is at; None where it has no schema yet."""
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection, config: Config) -> None:
    revision = revision_of(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"The ledger is at schema {revision}, which this older program does not know. Install the version that "
            "migrated it, and run `bridge serve` of that; there is no way back to an older schema."
        )
