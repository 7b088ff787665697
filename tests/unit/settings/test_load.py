from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.errors import SettingsError
from bridge.settings import Settings, load, summary, warnings
from bridge.settings.introspection import names_of, table_of
from bridge.settings.load import MAX_FILE_BYTES, _validate
from tests.end_to_end.processes import toml
from tests.unit.settings.conftest import LOOPBACK, ROUTE


def test_a_small_file_is_enough_and_the_rest_has_defaults(loads):
    settings = loads()
    assert settings.routes[0].name == "shop"
    assert settings.routes[0].project_token.get_secret_value() == "tok-shop"
    assert settings.server.max_report_size == 50 * 1024 * 1024
    assert settings.polling.idle_timeout == timedelta(minutes=15)


def test_settings_cannot_be_changed(loads):
    with pytest.raises(ValueError, match="frozen"):
        loads().server.port = 1


def test_everything_that_is_wrong_is_said_at_once(complains):
    said = complains(
        '[server]\nport = "no"\n[testnod]\nbase_ulr = ""\n[polling]\nmin_interval = "2m"\nmax_interval = "1m"\n'
        '[callers]\nauth = "aksk"\n[[routes]]\nname = "shop"\ntags = ["{branch}"]\n',
        {"BRIDGE_NON__SENSE": "1"},
    )
    assert [line.partition(": ")[0] for line in said] == [
        "BRIDGE_NON__SENSE",
        "server.port",
        "testnod.base_ulr",
        "polling.max_interval",
        "callers.keys",
        "routes[0].project_token",
        "routes[0].tags[0]",
    ]


def test_a_file_may_begin_with_a_byte_order_mark_as_some_editors_write_it(loads):
    assert loads("\ufeff" + LOOPBACK + ROUTE).routes[0].name == "shop"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[server\n", "is not TOML: "),
        (b"\xff", "is not UTF-8. Save it as UTF-8."),
        (b"#" * (MAX_FILE_BYTES + 1), "is too large to be a settings file."),
        (b"a = " + b"[" * 5000, "is not TOML: "),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused_by_name(tmp_path: Path, content, said):
    path = tmp_path / "bridge.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        load(path, {})
    assert refused.value.complaints[0].startswith(f"{path}: {said}")


def test_a_file_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.toml", {})


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "token", "x"]), inner),
    max_leaves=6,
)
_NAMES = [
    "name",
    "port",
    "auth",
    "tokens",
    "keys",
    "tags",
    "code_check",
    "job_id",
    "retention",
    "secret",
    "expires_at",
    "requests_per_minute",
]
_tables = st.dictionaries(st.sampled_from(_NAMES), _values, max_size=4)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "unknown"]), _tables | st.lists(_tables) | _values))
def test_whatever_stands_in_the_file_ends_in_settings_or_complaints(raw):
    settings, complaints = _validate(raw)
    assert isinstance(settings, Settings)
    assert all(complaint.key and complaint.fault and complaint.remedy for complaint in complaints)


_WRITTEN = [
    *("", "x", "*", "5s", "-1s", "9d", "50 MiB", "0.0.0.0", "::1", "127.0.0.1/33", "token", "open", "iam", "sha256:0"),
    *(
        "http://x",
        "https://u:p@x:99999",
        "http://[x",
        "sqlite:///",
        "postgresql://[",
        "s3://",
        "s3://b/../p",
        "/dev/null",
    ),
    *("/dev/null", "${X}", "{job_id}-{build_no}", "{", "a\0b", "\u202e", "2026-01-01T00:00:00Z", "n" * 5000),
]
_scalars = st.sampled_from(_WRITTEN) | st.integers(-1, 2**40) | st.booleans() | st.floats(0, 9, width=16)
_contents = _scalars | st.lists(_scalars, max_size=3)
_KEYS = {name: list(names_of(table)) for name, field in Settings.model_fields.items() if (table := table_of(field))}


@st.composite
def _files(draw):
    written = {}
    for name in draw(st.lists(st.sampled_from([*_KEYS, "unknown"]), max_size=6, unique=True)):
        keys = st.sampled_from([*_KEYS.get(name, []), "token_file", "unknown"])
        table = st.dictionaries(keys, _contents, max_size=5)
        written[name] = draw(table | st.lists(table, min_size=1, max_size=2))
    return written


@hypothesis_settings(deadline=None, max_examples=150)
@given(_files())
def test_whatever_is_written_in_the_file_is_a_gateways_settings_or_refused_by_its_keys(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("settings") / "bridge.toml"
    path.write_text(toml(written), encoding="utf-8")
    try:
        settings = load(path, {})
    except SettingsError as refused:
        complaints = refused.complaints
        assert complaints
        assert all(": " in complaint for complaint in complaints)
    else:
        assert summary(settings)
        assert all(isinstance(sentence, str) for sentence in warnings(settings))
