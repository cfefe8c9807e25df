import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ebbflow.errors import MapMismatch
from ebbflow.kernel.map_calls import ENOTSUPP, count_cpus, reason
from ebbflow.kernel.map_types import as_array, check_type, pad, reduce_cpus, stride_of, unpad

PAIR = np.dtype([("a", "<u4"), ("b", "<u2")])
U4 = np.dtype("<u4")


@pytest.mark.parametrize(
    ("given_keys", "dtype", "expected"),
    [
        (7, U4, [7]),
        ([1, 2], U4, [1, 2]),
        (range(3), U4, [0, 1, 2]),
        (np.arange(3), U4, [0, 1, 2]),
        (np.int64(5), U4, [5]),
        ([], U4, []),
        (b"ab", np.dtype("S4"), [b"ab"]),
        ((1, 2), PAIR, [(1, 2)]),
        ([(1, 2), (3, 4)], PAIR, [(1, 2), (3, 4)]),
        (np.array([(1, 2)], PAIR), PAIR, [(1, 2)]),
        (np.array([(1, 2)], PAIR)[0], PAIR, [(1, 2)]),
    ],
)
def test_as_array_of_what_fits_is_converted(given_keys, dtype, expected):
    array = as_array(given_keys, dtype, "key")
    assert (array.dtype, array.tolist(), array.flags.c_contiguous) == (dtype, expected, True)


@pytest.mark.parametrize(
    ("given_keys", "dtype"),
    [
        (-1, U4),
        (1 << 32, U4),
        ([1.5], U4),
        (float("nan"), U4),
        (np.array([-1]), U4),
        (np.array([1 << 40]), U4),
        ("text", U4),
        (b"too long", np.dtype("S4")),
        (None, U4),
        (5, PAIR),
        ([5, 6], PAIR),
        ((1, 2, 3), PAIR),
        ((-1, 2), PAIR),
        (np.zeros(2, [("a", "<u4"), ("c", "<u2")]), PAIR),
        (np.zeros(2, PAIR), U4),
    ],
)
def test_as_array_of_what_does_not_fit_is_refused(given_keys, dtype):
    with pytest.raises(MapMismatch, match="key"):
        as_array(given_keys, dtype, "key")


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 40))))
def test_pad_and_unpad_are_inverse_for_every_size(raw):
    count, cpus, size = raw.shape
    values = np.ascontiguousarray(raw).reshape(-1).view(f"V{size}").reshape(count, cpus)
    padded = pad(values, stride_of(size))
    assert padded.shape == (count, cpus, -(-size // 8) * 8)
    assert np.array_equal(unpad(padded, values.dtype), values)


def test_reduce_cpus_goes_field_by_field():
    dtype = np.dtype([("calls", "<u8"), ("slots", "<u4", (2,)), ("comm", "S4"), ("inner", [("low", "<i4")])])
    values = np.array(
        [[(1, (2, 3), b"", (-4,)), (10, (20, 30), b"sh", (-40,))], [(0, (0, 0), b"", (0,)), (7, (7, 7), b"", (7,))]],
        dtype,
    )
    for how, first in {
        "sum": (11, (22, 33), b"sh", (-44,)),
        "max": (10, (20, 30), b"sh", (-4,)),
        "min": (1, (2, 3), b"sh", (-40,)),
    }.items():
        second = (7 * (how != "min"), (7, 7) if how != "min" else (0, 0), b"", (7 * (how != "min"),))
        assert np.array_equal(reduce_cpus(values, how), np.array([first, second], dtype))
    assert reduce_cpus(values).dtype == dtype


def test_reduce_cpus_of_numbers_keeps_their_type():
    assert reduce_cpus(np.array([[1, 2], [3, 4]], "<u4")).tolist() == [3, 7]
    assert reduce_cpus(np.array([[1, 2]], "<u4")).dtype == U4
    assert reduce_cpus(np.empty((0, 2), PAIR)).shape == (0,)


class Pair(ctypes.Structure):
    _fields_ = (("a", ctypes.c_uint), ("b", ctypes.c_ushort), ("hole", ctypes.c_char * 2))


WITH_HOLE = np.dtype({"names": ["a", "b"], "formats": ["<u4", "<u2"], "offsets": [0, 4], "itemsize": 8})


def test_check_type_accepts_the_same_members_at_the_same_places():
    check_type(WITH_HOLE, Pair, "value")
    check_type(U4, ctypes.c_uint, "key")
    check_type(np.dtype("V8"), Pair, "value")


@pytest.mark.parametrize(
    ("dtype", "told"),
    [
        (np.dtype("<u8,<u4"), "12 bytes, but the program's are 8"),
        (np.dtype([("a", "<u2"), ("b", "<u2"), ("hole", "<u4")]), r"a is \(0, 2\)"),
        (np.dtype([("a", "<u4"), ("c", "<u2"), ("hole", "V2")]), "has no c"),
    ],
)
def test_check_type_refuses_other_members(dtype, told):
    with pytest.raises(MapMismatch, match=told):
        check_type(dtype, Pair, "value")


def test_count_cpus_of_the_kernels_lists():
    assert [count_cpus(text) for text in ("0\n", "0-1\n", "0-3,8", "0,2,4-7\n")] == [1, 2, 5, 6]


def test_reason_knows_the_kernels_own_errno():
    assert "not supported" in reason(ENOTSUPP)
    assert reason(2) == "No such file or directory"
