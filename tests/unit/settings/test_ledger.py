import pytest

from bridge.settings.ledger import ledger_rules
from bridge.settings.model import Settings, StoreSettings


def complaints(url: str) -> list[str]:
    return [complaint.fault for complaint in ledger_rules(Settings(store=StoreSettings(url=url)))]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///data/bridge.db",
        "sqlite:////data/bridge.db",
        "postgresql://bridge@db.example/bridge?passfile=/run/secrets/pgpass",
        "postgres://bridge:se%2Fcret@db.example:5432/bridge",
        "postgresql://bridge@/bridge?host=/run/postgresql",
        "postgresql:///bridge?host=/run/postgresql&user=bridge",
        "postgresql://bridge@one.example:5432,two.example,[2001:db8::1]:6432/bridge?target_session_attrs=read-write",
        "postgresql://db.example/bridge?user=bridge@tenant",
        "postgresql://bridge:p@ss@db.example/bridge",
    ],
)
def test_a_ledger_has_a_url_of_one_reading(url):
    assert complaints(url) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:se/cret@db.example/bridge",
        "postgresql://bridge:se?cret@db.example/bridge",
        "postgresql://bridge:se#cret@db.example/bridge",
        "postgresql://bridge:se?a=cret@db.example/bridge",
        "postgresql:bridge:secret@db.example",
        "postgresql://bridge:secret@[::1/bridge",
        "postgresql://bridge@db.example:abc/bridge",
        "postgresql://bridge@db.example:65536/bridge",
        "postgresql://bridge@one.example:1,two.example:99999/bridge",
    ],
)
def test_a_password_that_could_be_taken_for_a_host_or_a_file_is_not_shown_but_refused(url):
    assert complaints(url) == ["is no URL of PostgreSQL."]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///data/bridge.db?mode=ro"])
def test_a_sqlite_ledger_is_a_file(url):
    assert complaints(url) == ["names no file."]


@pytest.mark.parametrize("url", ["", "mysql://x", "postgresql+asyncpg://bridge@db.example/bridge", "bridge.db"])
def test_other_databases_are_no_ledger(url):
    assert complaints(url) == ["is no ledger."]
