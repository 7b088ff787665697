"""Plain arguments of `bridge serve`, which need no typer: they must mean what typer makes of them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge import cli
from bridge.commands import serve_arguments
from bridge.commands.serve_arguments import PlainArguments, read_plain_arguments
from bridge.errors import SettingsError

VARIABLES = {"BRIDGE_CONFIG": "from-variable.toml"}


@pytest.mark.parametrize("environ", [{}, VARIABLES], ids=["no variable", "variable"])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.toml"],
        ["--config", "a.toml"],
        ["-c", "a.toml"],
        ["--paused"],
        ["a.toml", "--paused"],
        ["--paused", "--config", "a.toml"],
        ["a.toml", "-c", "b.toml"],
    ],
    ids=" ".join,
)
def test_plain_arguments_mean_what_typer_makes_of_them(monkeypatch, arguments, environ):
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)
    runs = []
    monkeypatch.setattr(serve_arguments, "run_gateway", lambda path, *, paused: runs.append((path, paused)))

    CliRunner().invoke(cli.app, ["serve", *arguments], env=environ)
    plain = read_plain_arguments(arguments, environ)

    assert plain is None or runs == [plain]
    assert (plain is None) == (not environ and "toml" not in " ".join(arguments))  # typer knows the default


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["a.toml", "b.toml"],
        ["--config"],
        ["--config=a.toml"],
        ["-ca.toml"],
        ["--config", "a.toml", "--config", "b.toml"],
        ["--config", "--paused"],
        ["--pause"],
        ["--", "a.toml"],
        [""],
    ],
    ids=" ".join,
)
def test_other_arguments_are_left_to_typer(arguments):
    assert read_plain_arguments(arguments, VARIABLES) is None


def test_a_gateway_that_cannot_start_prints_cause_and_remedy_and_exits_with_1(monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise SettingsError(["server.port: is not a port. Use a number."])

    monkeypatch.setattr(serve_arguments, "run_gateway", fail)

    assert serve_arguments.main(PlainArguments(Path("a.toml"), paused=False)) == 1
    assert capsys.readouterr().err == "server.port: is not a port. Use a number.\n"


def test_ctrl_c_before_the_gateway_runs_exits_like_a_shell(monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve_arguments, "run_gateway", interrupt)

    assert serve_arguments.main(PlainArguments(Path("a.toml"), paused=False)) == 130
