"""Bring a ledger's schema to what this code was written for, or say why not.

It knows no table: migrations/versions holds one file a step. A ledger is never taken back to an older schema.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from bridge.errors import SchemaMismatch

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> str:
    """Run the migrations that are missing, all or none; return the revision that the ledger is at then."""
    with engine.begin() as connection:
        config = _config(connection)
        _refuse_newer(connection, config)
        command.upgrade(config, "head")
        return newest_revision()


def check(engine: Engine) -> None:
    """Raise SchemaMismatch unless the ledger is at this code's schema."""
    with engine.connect() as connection:
        config = _config(connection)
        _refuse_newer(connection, config)
        if _revision(connection) != newest_revision():
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


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection, config: Config) -> None:
    revision = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"The ledger is at schema {revision}, which this older program does not know. Run the newer program."
        )
