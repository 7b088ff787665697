"""Imports go in one direction (docs/architecture.md, Map): each package lists here what it may import."""

import ast
import sys
from pathlib import Path

import pytest

import bridge

HERE = Path(bridge.__file__).parent
CORE = {"domain", "errors"}
EDGE = {*CORE, "protocols", "clock", "settings"}
BACKENDS = {*EDGE, "store", "client", "telemetry"}
TOP = {*BACKENDS, "server", "worker", "sandbox", "app", "commands", "demo", "cli"}
MAY_IMPORT = {
    "errors": set(),
    "clock": CORE,
    "domain": {"errors"},
    "protocols": CORE,
    "settings": CORE,
    "store": EDGE,
    "client": EDGE,
    "telemetry": EDGE,
    "server": BACKENDS,
    "worker": BACKENDS,
    "sandbox": {"errors", "protocols"},
    "app": {*BACKENDS, "server", "worker", "sandbox"},
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
"""The packages inside the largest ones; modules above them may import all of them."""

PURE_LIBRARIES = {"lxml", "xmltodict"}
"""What domain and protocols may use beside the standard library: these read bytes at hand."""

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "uuid",
}  # fmt: skip
"""I/O, clocks, randomness and concurrency of the standard library."""

PURE_ENOUGH = {"io.BytesIO", "io.StringIO", "datetime.datetime", "datetime.timedelta", "datetime.UTC"}
"""Pure names in impure modules."""

MODULES = sorted(path.relative_to(HERE) for path in HERE.rglob("*.py"))


def package_of(module):
    return module.parts[0].removesuffix(".py")


def imported(module):
    """Return every name that a module imports, also inside functions, as dotted paths."""
    names = set()
    for node in ast.walk(ast.parse((HERE / module).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: write the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(module):
    parts = [name.split(".") for name in imported(module)]
    return {part[1] for part in parts if part[0] == "bridge" and len(part) > 1 and part[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_the_packages_below_its_own(module):
    package = package_of(module)

    assert package in MAY_IMPORT, f"bridge/{package} is a new package: list in this table what it may import"
    assert imported_packages(module) - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize(
    "module",
    [
        module
        for module in MODULES
        if package_of(module) in INSIDE and len(module.parts) > 2 and "migrations" not in module.parts
    ],
    ids=str,
)
def test_the_packages_inside_a_package_import_each_other_one_way(module):
    outer, package = module.parts[:2]
    assert package in INSIDE[outer], f"bridge/{outer}/{package} is a new package: list in this table what it may import"
    known = {name.split(".")[2] for name in imported(module) if name.startswith(f"bridge.{outer}.")}
    assert known - {package} <= INSIDE[outer][package]


@pytest.mark.parametrize(
    "module", [module for module in MODULES if package_of(module) in {"domain", "protocols", "errors"}], ids=str
)
def test_domain_and_protocols_import_no_io_clock_randomness_or_concurrency(module):
    for name in imported(module):
        top = name.split(".")[0]
        if name in PURE_ENOUGH or top in {"bridge", *PURE_LIBRARIES}:
            continue
        assert top in sys.stdlib_module_names, f"{module} imports {name}"
        assert top not in IMPURE, f"{module} imports {name}"


def test_no_two_packages_import_each_other():
    for package, known in MAY_IMPORT.items():
        for other in known - {package}:
            assert package not in MAY_IMPORT[other] or {package, other} <= {"cli", "commands", "demo"}


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("server", "worker"),
        ("worker", "server"),
        *[("sandbox", foreign) for foreign in ("server", "worker", "store", "client")],
        ("domain", "protocols"),
        ("protocols", "store"),
    ],
)
def test_these_packages_never_import_each_other(package, foreign):
    assert foreign not in MAY_IMPORT[package]
