"""Imports run one way (docs/architecture.md, Rooms): each room names here all that it may know."""

import ast
import sys
from pathlib import Path

import pytest

import bridge

HERE = Path(bridge.__file__).parent
CORE = {"domain", "errors"}
EDGE = {*CORE, "protocols", "clock", "settings"}
KEPT = {*EDGE, "store", "client", "telemetry"}
TOP = {*KEPT, "server", "worker", "sandbox", "app", "commands", "demo", "cli"}
MAY_KNOW = {
    "errors": set(),
    "clock": CORE,
    "domain": {"errors"},
    "protocols": CORE,
    "settings": CORE,
    "store": EDGE,
    "client": EDGE,
    "telemetry": EDGE,
    "server": KEPT,
    "worker": KEPT,
    "sandbox": {"errors", "protocols"},
    "app": {*KEPT, "server", "worker", "sandbox"},
    "commands": TOP,
    "demo": TOP,
    "cli": TOP,
    "__main__": {"cli"},
    "__init__": set(),
}
INSIDE = {
    "domain": {
        "junit": {"text_format"},
        "code_check": {"junit", "build", "changes", "instants", "outcomes", "policy", "retry", "steps", "text_format"},
        "lifecycle": {
            "build",
            "changes",
            "circuit_breaker",
            "clock_trust",
            "code_check",
            "instants",
            "job_order",
            "outcomes",
            "policy",
            "retry",
            "routing",
            "steps",
            "text_format",
        },
    },
    "server": {
        "http": set(),
        "validation": set(),
        "compression": {"http"},
        "auth": {"http"},
        "upload": {"http", "validation", "compression", "auth"},
        "proxy": {"http", "compression", "auth"},
        "admin": {"http", "auth", "upload", "health", "config"},
    },
    "store": {
        "engine": set(),
        "blobs": {"row_mapping"},
        "archive": {"blobs", "schema"},
    },
}
"""The rooms inside the largest; the modules above them put them together."""

PURE_LIBRARIES = {"lxml", "xmltodict"}
"""What domain and protocols may use beside the standard library: these read bytes at hand."""

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "uuid",
}  # fmt: skip
"""I/O, clocks, chance and concurrency of the standard library."""

PURE_ENOUGH = {"io.BytesIO", "io.StringIO", "datetime.datetime", "datetime.timedelta", "datetime.UTC"}
"""Values that live in rooms of ill repute."""

MODULES = sorted(path.relative_to(HERE) for path in HERE.rglob("*.py"))


def room_of(module):
    return module.parts[0].removesuffix(".py")


def imported(module):
    """Return every name that a module imports, also inside functions, as dotted paths."""
    names = set()
    for node in ast.walk(ast.parse((HERE / module).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: say the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def known_rooms(module):
    parts = [name.split(".") for name in imported(module)]
    return {part[1] for part in parts if part[0] == "bridge" and len(part) > 1 and part[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_knows_only_the_rooms_below_its_own(module):
    room = room_of(module)

    assert room in MAY_KNOW, f"bridge/{room} is a new room: say in this table what it may know"
    assert known_rooms(module) - {room} <= MAY_KNOW[room]


@pytest.mark.parametrize(
    "module",
    [
        module
        for module in MODULES
        if room_of(module) in INSIDE and len(module.parts) > 2 and "migrations" not in module.parts
    ],
    ids=str,
)
def test_the_rooms_inside_a_room_know_each_other_one_way(module):
    outer, room = module.parts[:2]
    assert room in INSIDE[outer], f"bridge/{outer}/{room} is a new room: say in this table what it may know"
    known = {name.split(".")[2] for name in imported(module) if name.startswith(f"bridge.{outer}.")}
    assert known - {room} <= INSIDE[outer][room]


@pytest.mark.parametrize(
    "module", [module for module in MODULES if room_of(module) in {"domain", "protocols", "errors"}], ids=str
)
def test_the_core_and_the_languages_know_no_io_no_clock_no_chance_and_no_concurrency(module):
    for name in imported(module):
        top = name.split(".")[0]
        if name in PURE_ENOUGH or top in {"bridge", *PURE_LIBRARIES}:
            continue
        assert top in sys.stdlib_module_names, f"{module} imports {name}"
        assert top not in IMPURE, f"{module} imports {name}"


def test_the_one_way_has_no_way_back():
    for room, known in MAY_KNOW.items():
        for other in known - {room}:
            assert room not in MAY_KNOW[other] or {room, other} <= {"cli", "commands", "demo"}


@pytest.mark.parametrize(
    ("room", "stranger"),
    [
        ("server", "worker"),
        ("worker", "server"),
        *[("sandbox", stranger) for stranger in ("server", "worker", "store", "client")],
        ("domain", "protocols"),
        ("protocols", "store"),
    ],
)
def test_strangers_stay_strangers(room, stranger):
    assert stranger not in MAY_KNOW[room]
