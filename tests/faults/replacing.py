"""Replaces a name of the product wherever it is known, also where another module has imported it."""

import sys
from types import ModuleType
from typing import Any

PRODUCT = "bridge."


def replace_everywhere(module: ModuleType, name: str, replacement: Any) -> None:
    """Let `name` of `module`, and of every module of the product that has taken it from there, be `replacement`."""
    original = getattr(module, name)
    product = [known for path, known in sys.modules.items() if path.startswith(PRODUCT)]
    for taker in (module, *product):
        if taker.__dict__.get(name) is original:
            setattr(taker, name, replacement)
