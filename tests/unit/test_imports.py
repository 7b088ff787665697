"""Imports run one way (docs/architecture.md, Map): `MAY_IMPORT` lists what each folder of `bridge/` may import."""

import ast
import sys
from pathlib import Path

import pytest

import bridge

HERE = Path(bridge.__file__).parent
CORE = {"domain", "errors", "values"}
EDGE = {*CORE, "protocols", "clock", "settings"}
KEPT = {*EDGE, "store", "client", "telemetry"}
TOP = {*KEPT, "server", "worker", "sandbox", "app", "commands", "demo", "cli"}
MAY_IMPORT = {
    "errors": set(),
    "values": set(),
    "clock": CORE,
    "domain": {"errors", "values"},
    "protocols": CORE,
    "settings": CORE,
    "store": EDGE,
    "client": EDGE,
    "telemetry": EDGE,
    "server": KEPT,
    "worker": KEPT,
    "sandbox": {"errors", "protocols", "values"},
    "app": {*KEPT, "server", "worker", "sandbox"},
    "commands": TOP,
    "demo": TOP,
    "cli": TOP,
    "__main__": {"cli", "commands"},
    "__init__": set(),
}
INSIDE = {
    "domain": {
        "junit": {"text_format"},
        "code_check": {
            "build",
            "changes",
            "generated_report",
            "instants",
            "outcomes",
            "policy",
            "retry",
            "steps",
            "text_format",
        },
        "lifecycle": {
            "build",
            "changes",
            "circuit_breaker",
            "clock_trust",
            "code_check",
            "generated_report",
            "instants",
            "job_order",
            "outcomes",
            "policy",
            "result_mismatch",
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
        "submission": {"http", "validation", "compression", "upload"},
        "admin": {"http", "auth", "upload", "health", "config"},
    },
    "store": {
        "engine": set(),
        "blobs": {"row_mapping", "duplicates"},
        "archive": {"blobs", "schema", "duplicates"},
    },
}
"""What the folders inside the largest folders may import of each other; the modules beside them may import all."""

PURE_LIBRARIES = {"lxml", "xmltodict", "re2"}
"""What domain and protocols may use beside the standard library: these read bytes at hand."""

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "uuid",
}  # fmt: skip
"""I/O, clocks, randomness and concurrency of the standard library."""

PURE_ENOUGH = {"io.BytesIO", "io.StringIO", "datetime.datetime", "datetime.timedelta", "datetime.UTC"}
"""Values whose modules are impure."""

MODULES = sorted(path.relative_to(HERE) for path in HERE.rglob("*.py"))


def folder_of(module):
    return module.parts[0].removesuffix(".py")


def imported(module):
    """Return every name that a module imports, also inside functions, as dotted paths."""
    names = set()
    for node in ast.walk(ast.parse((HERE / module).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively. Write the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_folders(module):
    parts = [name.split(".") for name in imported(module)]
    return {part[1] for part in parts if part[0] == "bridge" and len(part) > 1 and part[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_the_folders_below_its_own(module):
    folder = folder_of(module)

    assert folder in MAY_IMPORT, f"bridge/{folder} is new: add to this table what it may import"
    assert imported_folders(module) - {folder} <= MAY_IMPORT[folder]


@pytest.mark.parametrize(
    "module",
    [
        module
        for module in MODULES
        if folder_of(module) in INSIDE and len(module.parts) > 2 and "migrations" not in module.parts
    ],
    ids=str,
)
def test_the_folders_inside_a_folder_import_each_other_one_way(module):
    outer, folder = module.parts[:2]
    assert folder in INSIDE[outer], f"bridge/{outer}/{folder} is new: add to this table what it may import"
    imports = {name.split(".")[2] for name in imported(module) if name.startswith(f"bridge.{outer}.")}
    assert imports - {folder} <= INSIDE[outer][folder]


@pytest.mark.parametrize(
    "module", [module for module in MODULES if folder_of(module) in {"domain", "protocols", "errors"}], ids=str
)
def test_domain_and_protocols_import_no_io_no_clock_no_randomness_and_no_concurrency(module):
    for name in imported(module):
        top = name.split(".")[0]
        if name in PURE_ENOUGH or top in {"bridge", *PURE_LIBRARIES}:
            continue
        assert top in sys.stdlib_module_names, f"{module} imports {name}"
        assert top not in IMPURE, f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if str(module) != "values.py"], ids=str)
def test_dataclasses_are_those_of_values_which_need_no_compiler_at_the_start(module):
    assert not imported(module) & {"dataclasses.dataclass", "dataclasses.make_dataclass"}


def test_no_two_folders_import_each_other():
    for folder, imports in MAY_IMPORT.items():
        for other in imports - {folder}:
            assert folder not in MAY_IMPORT[other] or {folder, other} <= {"cli", "commands", "demo"}


@pytest.mark.parametrize(
    ("folder", "other"),
    [
        ("server", "worker"),
        ("worker", "server"),
        *[("sandbox", other) for other in ("server", "worker", "store", "client")],
        ("domain", "protocols"),
        ("protocols", "store"),
    ],
)
def test_the_table_keeps_these_folders_apart(folder, other):
    assert other not in MAY_IMPORT[folder]
