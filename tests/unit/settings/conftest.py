"""A settings file in a folder of its own, and what is said of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.settings import Settings, load

LOOPBACK = '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "tok-shop"\n'

Loads = Callable[..., Settings]
Complains = Callable[..., list[str]]


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    """Load a settings text, `{folder}` in it being a folder of the test's own."""

    def read(text: str = LOOPBACK + ROUTE, environ: Mapping[str, str] | None = None) -> Settings:
        path = tmp_path / "bridge.toml"
        path.write_text(text.replace("{folder}", str(tmp_path)), encoding="utf-8")
        return load(path, environ or {})

    return read


@pytest.fixture
def complains(loads: Loads) -> Complains:
    """Return the complaints about a settings text."""

    def read(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(SettingsError) as refused:
            loads(text, environ)
        return refused.value.problems

    return read
