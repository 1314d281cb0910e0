"""Numbers in the memory of a host, which come as addresses."""

from __future__ import annotations

import ctypes

import numpy as np

from sparsehess.errors import InputError


def array_at(address: int, count: int, kind: type[np.generic] = np.float64) -> np.ndarray:
    """Return `count` numbers of the host's memory, not copied. Not collective."""
    if count == 0:
        return np.empty(0, kind)
    if not address:
        raise InputError("the pointer is NULL")
    memory = (ctypes.c_char * (count * np.dtype(kind).itemsize)).from_address(address)
    return np.frombuffer(memoryview(memory), kind)


def index_type(bits: int, base: int) -> type[np.int32] | type[np.int64]:
    """Return the type of numbers of rows and columns, which begin at a base. Not collective."""
    if base not in (0, 1):
        raise InputError(f"base={base}: numbers begin at 0 or 1")
    return np.int32 if bits == 32 else np.int64


def write_at(address: int, value: int, kind: type[ctypes.c_int] | type[ctypes.c_int64]) -> None:
    """Write a number into the host's memory. Not collective."""
    if not address:
        raise InputError("the pointer is NULL")
    kind.from_address(address).value = value
