import numpy as np

from ebbflow.store.columns import INDEX, SPAN_COLUMNS, to_batch


def test_to_batch_rows_become_typed_arrays_by_column():
    row = tuple("text" if column.dtype is object else 7 for column in SPAN_COLUMNS)
    batch = to_batch([row, row])
    assert list(batch) == [column.name for column in SPAN_COLUMNS]
    assert batch["kind"].dtype == np.uint8
    assert batch["name"].tolist() == ["text", "text"]


def test_to_batch_full_range_of_ids_survives():
    row = [0 if column.dtype is not object else "" for column in SPAN_COLUMNS]
    row[INDEX["trace_hi"]] = (1 << 64) - 1
    assert int(to_batch([tuple(row)])["trace_hi"][0]) == (1 << 64) - 1
