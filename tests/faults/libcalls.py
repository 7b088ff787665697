"""Calls that a loaded library makes into the C library, replaced from inside the process: a shim without a compiler.

It rewrites the slots through which an ELF library calls others (64-bit Linux), as LD_PRELOAD would
have filled them at the start: no compiler is needed where the tests run, and faults can come and go.
"""

import ctypes
import ctypes.util
import mmap
from collections.abc import Callable, Iterator
from typing import Any

DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL = 2, 5, 6, 7, 8, 23
RTLD_DI_LINKMAP = 2
PROT_READ, PROT_WRITE = 1, 2
RELA_BYTES = SYMBOL_BYTES = 24

_libc = ctypes.CDLL(None, use_errno=True)
_kept: list[Any] = []  # callbacks that C code points to must outlive it


class _LinkMap(ctypes.Structure):
    _fields_ = (("address", ctypes.c_size_t), ("name", ctypes.c_char_p), ("dynamic", ctypes.POINTER(ctypes.c_int64)))


def replace(library: ctypes.CDLL, name: str, kind: Any, make: Callable[[Any], Callable[..., int]]) -> bool:
    """Let `library` call `make(original)` in place of `name`, of the ctypes type `kind`; False: it never calls it."""
    slots = list(_slots(library, name))
    if slots:
        original = kind((name, _libc))
        callback = kind(make(original))
        _kept.extend((original, callback))
        for slot in slots:
            _write(slot, ctypes.cast(callback, ctypes.c_void_p).value or 0)
    return bool(slots)


def set_errno(number: int) -> None:
    """Set what `errno` is when the callback under way returns; its type must be made with use_errno=True."""
    ctypes.set_errno(number)


def _slots(library: ctypes.CDLL, name: str) -> Iterator[int]:
    found = ctypes.POINTER(_LinkMap)()
    _libc.dlinfo(ctypes.c_void_p(library._handle), RTLD_DI_LINKMAP, ctypes.byref(found))
    base, dynamic = found.contents.address, _dynamic(found.contents.dynamic)
    for table, size in ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)):
        for at in range(0, dynamic.get(size, 0), RELA_BYTES):
            offset, info = (ctypes.c_uint64 * 2).from_address(dynamic[table] + at)
            symbol = dynamic[DT_SYMTAB] + (info >> 32) * SYMBOL_BYTES
            text = dynamic[DT_STRTAB] + ctypes.c_uint32.from_address(symbol).value
            if info >> 32 and ctypes.string_at(text) == name.encode():
                yield base + offset


def _dynamic(entries: Any) -> dict[int, int]:
    values, at = {}, 0
    while entries[at]:
        values[entries[at]] = entries[at + 1]
        at += 2
    return values


def _write(slot: int, value: int) -> None:
    page = slot - slot % mmap.PAGESIZE
    if _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), PROT_READ | PROT_WRITE):
        raise OSError(ctypes.get_errno(), "the library's slots cannot be written")
    ctypes.c_size_t.from_address(slot).value = value
