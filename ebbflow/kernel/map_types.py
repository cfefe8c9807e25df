"""Keys and values of kernel maps as numpy arrays: conversion, padding, and the checks before the kernel is called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ebbflow.errors import MapMismatch

Array = np.ndarray[Any, np.dtype[Any]]
_WORD = 8
_REDUCERS: Mapping[str, Callable[..., Array]] = {"sum": np.sum, "max": np.max, "min": np.min}


def as_array(given: Any, dtype: np.dtype[Any], what: str) -> Array:
    """What was given as a contiguous array of at least one dimension: an array, a number, a tuple, or a list of them.

    Raises:
        MapMismatch: another struct, or numbers that the type cannot hold.
    """
    array = given if isinstance(given, np.ndarray | np.generic) else _from_python(given, dtype, what)
    array = np.atleast_1d(array)
    if dtype.names or array.dtype.names:
        if array.dtype != dtype:
            raise MapMismatch(f"{what}: {array.dtype} given for {dtype}")
        return np.ascontiguousarray(array)
    try:
        with np.errstate(invalid="ignore"):
            converted = np.ascontiguousarray(array.astype(dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise MapMismatch(f"{what}: not {dtype}: {error}") from None
    if not np.array_equal(converted, array):
        raise MapMismatch(f"{what}: {array.dtype} given, and not every one fits {dtype}")
    return converted


def _from_python(given: Any, dtype: np.dtype[Any], what: str) -> Array:
    """Structs are tuples, or lists of them; of numbers numpy chooses the type, to be compared with."""
    if dtype.names and not _is_of_tuples(given):
        raise MapMismatch(f"{what}: a struct is given as a tuple")
    try:
        return np.asarray(given, dtype if dtype.names else None)
    except (TypeError, ValueError, OverflowError) as error:
        raise MapMismatch(f"{what}: not {dtype}: {error}") from None


def _is_of_tuples(given: Any) -> bool:
    if isinstance(given, list):
        return all(_is_of_tuples(one) for one in given)
    return isinstance(given, tuple | np.void)


def stride_of(value_size: int) -> int:
    """Bytes between the values of two CPUs."""
    return -(-value_size // _WORD) * _WORD


def unpad(raw: Array, dtype: np.dtype[Any]) -> Array:
    """Values, shape (n, cpus), from the bytes that a per-CPU map gives, shape (n, cpus, stride)."""
    if raw.shape[2] != dtype.itemsize:
        raw = raw[:, :, : dtype.itemsize]
    return np.ascontiguousarray(raw).reshape(-1).view(dtype).reshape(raw.shape[:2])


def pad(values: Array, stride: int) -> Array:
    """Bytes, shape (n, cpus, stride), from values, shape (n, cpus)."""
    size = values.dtype.itemsize
    raw = np.zeros((*values.shape, stride), np.uint8)
    raw[:, :, :size] = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(*values.shape, size)
    return raw


def reduce_cpus(values: Array, how: str = "sum") -> Array:
    """One value of the values of all CPUs: (n, cpus) to (n,), field by field, in the fields' own types.

    Args:
        values: numbers or structs; arrays within structs are reduced item by item.
        how: sum, max or min. Text (char[N]) is the first CPU's that has any.
    """
    if values.dtype.names is not None:
        reduced = np.zeros(values.shape[:1], values.dtype)
        for name in values.dtype.names:
            reduced[name] = reduce_cpus(values[name], how)
        return reduced
    if values.dtype.kind == "S":
        first = np.argmax(values != b"", axis=1)
        return np.take_along_axis(values, np.expand_dims(first, 1), axis=1)[:, 0]
    options = {"dtype": values.dtype} if how == "sum" else {}
    return np.asarray(_REDUCERS[how](values, axis=1, **options))


def check_type(dtype: np.dtype[Any], ctype: Any, what: str) -> None:
    """Compare a dtype with the type that BCC found in the program's text: sizes, and names and places of members.

    Raises:
        MapMismatch
    """
    if dtype.itemsize != ctypes.sizeof(ctype):
        raise MapMismatch(f"{what}: {dtype.itemsize} bytes, but the program's are {ctypes.sizeof(ctype)}")
    if dtype.fields is None or not issubclass(ctype, ctypes.Structure):
        return
    ours = {name: (field[1], field[0].itemsize) for name, field in dtype.fields.items()}
    for name, *_ in ctype._fields_:
        member = getattr(ctype, name)
        theirs = (member.offset, member.size)
        if ours.get(name, theirs) != theirs:
            raise MapMismatch(f"{what}: {name} is {ours[name]} (offset, bytes), but the program's {theirs}")
    unknown = ours.keys() - {name for name, *_ in ctype._fields_}
    if unknown:
        raise MapMismatch(f"{what}: the program's has no {', '.join(sorted(unknown))}")
