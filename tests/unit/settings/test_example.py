import re
import tomllib
from pathlib import Path

from bridge.settings import load
from bridge.settings.model import (
    CodeCheckSettings,
    KeySettings,
    NoticeSettings,
    RewriteSettings,
    RouteSettings,
    Settings,
    TokenSettings,
    UserSettings,
    table_of,
)

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"


def with_defaults():
    """Return the example as it would be with every `#name = value` in force, and the trial's own values left out."""
    lines, seen = [], set()
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if re.match(r"#?\[", line):
            seen = set()
            lines.append(line.lstrip("#"))
        elif named := re.match(r"#(\w+) = ", line):
            seen.add(named[1])
            # Tables stand below in their own form: `tokens = []` would forbid them.
            lines.append("" if named[1] in ("tokens", "keys", "users") else line[1:])
        elif (named := re.match(r"(\w+) = ", line)) and named[1] not in seen:
            lines.append(line)
    return tomllib.loads("\n".join(lines))


def settings_of(table):
    return set(table.model_fields)


def test_the_example_serves_a_trial_once_the_token_is_filled_in():
    settings = load(EXAMPLE, {"BRIDGE_ROUTES__DEFAULT__PROJECT_TOKEN": "canary"})
    assert settings.server.host == "127.0.0.1"
    assert settings.callers.auth == ("open",)


def test_the_example_shows_every_setting_with_its_default():
    settings = Settings.model_validate(with_defaults())
    for name, field in Settings.model_fields.items():
        if name not in ("routes", "callers", "notices"):
            assert getattr(settings, name) == field.default, name
    assert settings.callers.auth == ("token",)
    assert settings.callers.tokens == (TokenSettings(),)
    assert settings.callers.keys == (KeySettings(),)
    assert settings.callers.users == (UserSettings(),)
    assert settings.notices == (NoticeSettings(),)
    assert settings.routes == (RouteSettings(rewrite=(RewriteSettings(),), code_check=CodeCheckSettings()),)


def test_the_example_names_every_setting():
    headings = re.split(r"(?m)^#?\[+([\w.]+)\]+\n", EXAMPLE.read_text(encoding="utf-8"))
    named = {
        heading: set(re.findall(r"(?m)^#{0,2}(\w+) = ", body))
        for heading, body in zip(headings[1::2], headings[2::2], strict=True)
    }
    tables = {name: table_of(field) for name, field in Settings.model_fields.items()}
    tables |= {"callers.tokens": TokenSettings, "callers.keys": KeySettings, "callers.users": UserSettings}
    tables |= {"routes.code_check": CodeCheckSettings, "routes.rewrite": RewriteSettings}
    expected = {name: settings_of(table) for name, table in tables.items()}
    expected["routes"] -= {"code_check", "rewrite"}
    assert named == expected
