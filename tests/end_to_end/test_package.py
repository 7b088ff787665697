"""The wheel, as a stranger gets it: the same bytes from each build, and the first pages work with it as they stand."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import bridge
from tests.support.ports import held_port
from tests.support.shell_page import Terminal, steps_of
from tests.support.starting import REPOSITORY
from tools.build_release import build

EPOCH = 1_700_000_000
START = (REPOSITORY / "docs" / "start.md").read_text(encoding="utf-8")
CARE = (REPOSITORY / "docs" / "care.md").read_text(encoding="utf-8")
PORTS = {"8080": "server", "8081": "admin", "8182": "testnod"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return wheel and sdist."""
    return build(tmp_path_factory.mktemp("dist"), EPOCH)


def test_two_builds_have_the_same_bytes(built: list[Path], tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        again = build(tmp_path / "elsewhere", EPOCH)
    finally:
        os.umask(mask)
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_wheel_has_what_the_gateway_reads_and_nothing_else(built: list[Path]) -> None:
    wheel, sdist = built
    package = REPOSITORY / "bridge"
    files = {
        str(path.relative_to(REPOSITORY))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files == {name for name in names if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert files <= members


def test_version_and_metadata_are_those_of_the_package(built: list[Path]) -> None:
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nVersion: {bridge.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nClassifier: Typing :: Typed\n" in metadata
    assert f"codearts_testnod_bridge-{bridge.__version__}-" in wheel.name
    assert bridge.__version__ in START


@pytest.fixture
def terminal(built: list[Path], tmp_path: Path) -> Iterator[Terminal]:
    """Return a terminal in an empty folder that holds the wheel. Packages come from the tests' own environment."""
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(built[0], folder)
    (folder / "python3").symlink_to(sys.executable)
    with ExitStack() as stack:
        held = {port: str(stack.enter_context(held_port())) for port in PORTS}

        def changed(text: str) -> str:
            text = re.sub("|".join(held), lambda match: held[match[0]], text)
            text = text.replace("pip install --quiet", "pip install --quiet --no-deps --no-index")
            others = " ".join(f"--{name}-port 0" for name in ("codearts", "check", "iam", "s3", "control"))
            return text.replace("bridge sandbox", f"bridge sandbox --testnod-port {held['8182']} {others}")

        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "PYTHON"))}
        environ |= {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "BRIDGE_SERVER__PORT": held["8080"],
            "BRIDGE_ADMIN__PORT": held["8081"],
            "no_proxy": "127.0.0.1,localhost",
        }
        yield stack.enter_context(Terminal(folder, environ, changed))


@pytest.mark.early
@pytest.mark.timeout(900)
def test_the_first_minutes_and_the_care_after_them_are_as_the_pages_show_them(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert shutil.which("curl"), "The page uses curl. Install it."
    environment, *steps, stop = steps_of(START)
    terminal.play(environment)
    packages = Path(terminal.run("python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'").strip())
    assert tmp_path in packages.parents
    (packages / "of-the-tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")

    for step in (*steps, *steps_of(CARE), stop):
        terminal.play(step)
        if step.command.startswith("pip install"):
            found = terminal.run("python -c 'import bridge; print(bridge.__file__)'").strip()
            assert tmp_path in Path(found).parents


def test_each_command_of_bridge_is_known_to_the_page() -> None:
    commands = {step.command.split()[1] for step in steps_of(START) if step.command.startswith("bridge ")}
    assert {"init", "check-config", "serve", "upload", "why", "builds"} <= commands
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "--help"], check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert [name for name in commands if name not in done.stdout and not name.startswith("-")] == []
