"""`bridge init`: the file that it writes, what it asks, and what it never overwrites or prints."""

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bridge.domain.callers import hash_token
from tests.support.starting import REPOSITORY

CANARY = "canary-of-a-testnod-project"
PATIENCE_SECONDS = 90


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project-token").write_text(f"{CANARY}\n")
    (tmp_path / "codearts-token").write_text("canary-of-codearts\n")
    return tmp_path


def bridge(folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> tuple[int, str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        check=False,
        cwd=folder,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert "canary" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


OPTIONS = (
    *("--route", "shop", "--project-token-file", "project-token"),
    *("--region", "cn-north-4", "--codearts-token-file", "codearts-token", "--behind-tls-proxy"),
)


def test_options_give_a_file_that_is_valid_and_closed_to_others(folder: Path) -> None:
    code, out, err = bridge(folder, "init", *OPTIONS)

    assert (code, err) == (0, "")
    settings = tomllib.loads((folder / "bridge.toml").read_text())
    assert settings["routes"] == [{"name": "shop", "project_token": CANARY}]
    assert settings["codearts"]["endpoint"] == "https://cloudbuild-ext.cn-north-4.myhuaweicloud.com"
    token = (folder / "bridge.ci-token").read_text().strip()
    assert settings["callers"]["tokens"][0]["hash"] == hash_token(token)
    assert token not in out + (folder / "bridge.toml").read_text()
    for name in ("bridge.toml", "bridge.ci-token"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    (following,) = [line.removeprefix("Next: ") for line in out.splitlines() if line.startswith("Next: ")]
    assert following == "bridge check-config --online --config bridge.toml"
    assert bridge(folder, "check-config", "--config", "bridge.toml")[::2] == (0, "")


def test_the_least_answers_serve_this_machine(folder: Path) -> None:
    assert bridge(folder, "init", "--project-token-file", "project-token")[0] == 0
    settings = tomllib.loads((folder / "bridge.toml").read_text())
    assert (settings["server"], "codearts" in settings) == ({"host": "127.0.0.1"}, False)
    assert bridge(folder, "check-config")[0] == 0


@pytest.mark.parametrize("there", ["bridge.toml", "bridge.ci-token"])
def test_nothing_is_overwritten(there: str, folder: Path) -> None:
    (folder / there).write_text("mine")

    code, out, err = bridge(folder, "init", *OPTIONS)

    assert (code, out) == (1, "")
    assert f"{there} exists and is not overwritten." in err
    assert (folder / there).read_text() == "mine"
    assert not (folder / ({"bridge.toml", "bridge.ci-token"} - {there}).pop()).exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--route", "shop"], "--project-token-file is required"),
        (["--project-token-file", "nowhere"], "nowhere"),
        (["--project-token-file", "project-token", "--route", ""], "name"),
        (["--project-token-file", "project-token", "--region", "x", "--codearts-token-file", "nowhere"], "token_file"),
    ],
)
def test_what_does_not_lead_to_valid_settings_leaves_no_file(options: list[str], said: str, folder: Path) -> None:
    code, out, err = bridge(folder, "init", *options)

    assert (code, out) == (1, "")
    assert said in err
    assert not (folder / "bridge.toml").exists()
    assert not (folder / "bridge.ci-token").exists()


def test_a_person_is_asked_five_questions_and_the_token_is_not_shown(folder: Path) -> None:
    answers = ("shop", CANARY, "cn-north-4", "codearts-token", "y")
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "bridge", "init"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    environ |= {"PYTHONPATH": str(REPOSITORY)}
    shown = b""
    try:
        with subprocess.Popen(
            command, cwd=folder, env=environ, stdin=its, stdout=its, stderr=its, start_new_session=True
        ) as asking:
            for number, answer in enumerate(answers, start=1):
                while shown.count(b": ") < number:  # each question ends like this; input before it may be discarded
                    shown += os.read(ours, 4096)
                os.write(ours, f"{answer}\n".encode())
            code = asking.wait(PATIENCE_SECONDS)
            shown += os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(its)

    assert code == 0, shown
    assert CANARY.encode() not in shown
    settings = tomllib.loads((folder / "bridge.toml").read_text())
    assert settings["routes"] == [{"name": "shop", "project_token": CANARY}]
    assert settings["server"] == {"behind_tls_proxy": True}


def test_the_example_is_the_one_of_the_repository(folder: Path) -> None:
    assert bridge(folder, "init", "--example", "--config", "all.toml")[0] == 0
    assert (folder / "all.toml").read_text() == (REPOSITORY / "config.example.toml").read_text()
    assert (folder / "all.toml").stat().st_mode & 0o777 == 0o600
    assert bridge(folder, "init", "--example", "--config", "all.toml")[0] == 1
