"""Options of `bridge backfill` that are wrong: what is named, and with which remedy. Nothing is sent."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.errors import BridgeError
from tests.support.ports import REFUSED_URL

JOB = "68491d9bc97b4774adb93e29b46d2dc6"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BRIDGE_URL", "BRIDGE_TOKEN", "BRIDGE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "reports" / "shop" / "7" / "a.xml"
    file.parent.mkdir(parents=True)
    file.write_text("<testsuite/>")
    (tmp_path / "other").write_text("no database, but a file with more than sixteen bytes")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name a folder or an archive"),
        (["nowhere"], "nowhere does not exist"),
        (["reports", "--template", "{job}/…"], "{no}"),
        (["reports", "--template", "{no}/…"], "{job} is missing"),
        (["reports", "--template", "{job}/{no}/{what}"], "{what}"),
        (["reports", "--job", "shop"], "is not 32 digits and letters"),
        (["reports", "--project", "shop"], "--project: shop is not 32 digits and letters"),
        (["--job", JOB, "--since", "soon"], "is not a day"),
        (["reports", "--time-budget", "soon"], "is not a duration"),
        (["reports", "--rate", "0"], "--rate"),
        (["reports", "--rate", "1000"], "--rate"),
    ],
)
def test_wrong_usage_is_named(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["backfill", *arguments])

    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reports"], "Set BRIDGE_URL"),
        (["reports", "--url", REFUSED_URL], r"reports has no report at \{job\}/\{no\}/…, but for example shop/7/a.xml"),
        (["reports", "--dry-run"], "has no report at"),
        (["reports", "--url", REFUSED_URL, "--state", "other"], "is not the state of a backfill"),
        (["reports", "--url", REFUSED_URL, "--state", "nowhere/state"], "nowhere/state cannot be written"),
        (["--job", JOB, "--dry-run"], r"bridge\.toml"),
        (["other", "--dry-run"], "other cannot be read as zip, tar or tar.gz"),
    ],
)
def test_what_prevents_a_backfill_is_named(arguments: list[str], said: str) -> None:
    with pytest.raises(BridgeError, match=said):
        CliRunner().invoke(app, ["backfill", *arguments], catch_exceptions=False)


def test_a_template_that_lacks_the_job_takes_the_only_one_of_the_options() -> None:
    done = CliRunner().invoke(app, ["backfill", "reports", "--template", "{no}/…", "--job", JOB, "--job", JOB[::-1]])

    assert (done.exit_code, "{job} is missing" in done.stderr) == (2, True)
