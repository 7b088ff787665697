from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.errors import SettingsError
from bridge.settings import Settings, load, summary, warnings
from bridge.settings.load import MAX_FILE_BYTES, MAX_SECRET_BYTES, _validate
from bridge.settings.model import names_of, table_of
from tests.support.processes import toml
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


def test_all_problems_are_reported_at_once(problems_of):
    found = problems_of(
        '[server]\nport = "no"\n[testnod]\nbase_ulr = ""\n[polling]\nmin_interval = "2m"\nmax_interval = "1m"\n'
        '[callers]\nauth = "aksk"\n[[routes]]\nname = "shop"\ntags = ["{branch}"]\n',
        {"BRIDGE_NON__SENSE": "1"},
    )
    assert [line.partition(": ")[0] for line in found] == [
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
    ("content", "fault"),
    [
        (b"\xff", "is not UTF-8. Save it as UTF-8."),
        (b"#" * (MAX_FILE_BYTES + 1), "is too large for a settings file."),
        (b"a = " + b"[" * 5000, "is nested too deeply. Remove brackets."),
    ],
)
def test_a_file_that_is_not_a_settings_file_is_rejected_by_name(tmp_path: Path, content, fault):
    path = tmp_path / "bridge.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as rejected:
        load(path, {})
    assert rejected.value.problems[0].startswith(f"{path}: {fault}")


def test_a_missing_file_is_reported(tmp_path: Path):
    with pytest.raises(SettingsError, match="there is no such file"):
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
def test_any_file_gives_settings_or_problems(raw):
    settings, problems = _validate(raw)
    assert isinstance(settings, Settings)
    assert all(problem.key and problem.fault and problem.remedy for problem in problems)


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
def test_any_valid_toml_gives_settings_or_problems_by_key(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("settings") / "bridge.toml"
    path.write_text(toml(written), encoding="utf-8")
    try:
        settings = load(path, {})
    except SettingsError as rejected:
        problems = rejected.problems
        assert problems
        assert all(": " in problem for problem in problems)
    else:
        assert summary(settings)
        assert all(isinstance(sentence, str) for sentence in warnings(settings))


SECRET_ROUTE = '[[routes]]\nname = "shop"\nproject_token_file = "{folder}/secret"\n'


@pytest.mark.parametrize("content", ["canary", "canary\n", "canary\r\n", "\ufeffcanary\n"])
def test_a_secret_is_read_from_its_file_without_mark_and_last_line_break(loads, tmp_path, content):
    (tmp_path / "secret").write_bytes(content.encode())
    assert loads(LOOPBACK + SECRET_ROUTE).routes[0].project_token.get_secret_value() == "canary"


def test_a_file_of_several_secrets_holds_one_a_line(loads, tmp_path):
    (tmp_path / "secret").write_text("canary-old\ncanary-new\n")
    settings = loads(
        LOOPBACK + '[admin]\ntoken_file = "{folder}/secret"\n' + SECRET_ROUTE.replace("_file", "").replace("{", "x{")
    )
    assert [secret.get_secret_value() for secret in settings.admin.token] == ["canary-old", "canary-new"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory. Correct the path, or the permissions of the file."),
        (b"", "is empty. Write the secret to this file."),
        (b" \n", "is empty. Write the secret to this file."),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text. Correct the path, or the permissions of the file."),
        (b"x" * (MAX_SECRET_BYTES + 1), "is too large for a secret. Correct the path."),
    ],
)
def test_a_file_without_a_secret_is_the_only_problem(problems_of, tmp_path, content, fault):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert problems_of(LOOPBACK + SECRET_ROUTE) == [f"routes[0].project_token_file: {fault}"]


def test_a_secret_given_twice_is_reported(problems_of):
    assert problems_of(LOOPBACK + SECRET_ROUTE + 'project_token = "abc"\n') == [
        "routes[0].project_token_file: is set, and project_token too. Keep one of the two."
    ]


def test_a_path_that_is_not_text_is_reported(problems_of):
    assert problems_of(LOOPBACK + '[[routes]]\nname = "shop"\nproject_token_file = 5\n') == [
        "routes[0].project_token_file: is not text. Put the path of the file in quotes."
    ]
