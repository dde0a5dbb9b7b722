"""Parquet in and out. The only module that needs pyarrow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.cli.rows import EMBEDDING_FIELD, JsonlRows, Rows
from qwen3_rag.errors import ConfigurationError, MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError("reading and writing Parquet", "parquet") from error

_ROWS_AT_A_TIME: Final = 1024
"""Rows of one record batch. Chosen, not tuned."""


class ParquetRows(Rows):
    """Rows of a Parquet file; the text is a string column."""

    def __init__(self, path: Path, field: str) -> None:
        super().__init__(path, field)
        try:
            self.schema = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise ConfigurationError(f"{path} is not a Parquet file: {error}") from error
        if field not in self.schema.names:
            have = ", ".join(self.schema.names) or "none"
            raise ConfigurationError(f"{path} has no column {field!r}; it has: {have} (choose with --field)")
        if self.schema.names.count(field) > 1:
            raise ConfigurationError(
                f"{path} has several columns {field!r}; rename all but the one with the texts"
            )
        kind = self.schema.field(field).type
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise ConfigurationError(f"column {field!r} of {path} is {kind}, not text")

    def texts(self) -> Iterator[str]:
        number = 0
        for batch in self.batches([self.field]):
            for value in batch.column(0):
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:
                    raise self.row_error(number, f"is not UTF-8 in {self.field!r} ({error})") from error
                if text is None:
                    raise self.row_error(number, f"has null in {self.field!r}, not a string")
                yield text
                number += 1

    def open_json(self) -> Iterator[str]:
        number = 0
        for batch in self.batches(None):
            for index in range(len(batch)):
                try:
                    record = {name: value.as_py() for name, value in _cells(batch, index)}
                    yield json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1]
                # Also text that is not UTF-8 (ValueError) and dates outside Python's range (OverflowError).
                except (TypeError, ValueError, OverflowError) as error:
                    raise self.row_error(
                        number, f"cannot be written as JSON ({error}); write .parquet"
                    ) from error
                number += 1

    def check_new_field(self) -> None:
        if EMBEDDING_FIELD in self.schema.names:
            raise ConfigurationError(f'{self.path} already has a column "{EMBEDDING_FIELD}"')

    def check_json(self) -> None:
        twice = sorted({name for name in self.schema.names if self.schema.names.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"{self.path} has several columns {', '.join(map(repr, twice))}, of which a JSON object holds "
                "one; write .parquet, or rename them"
            )
        for _ in self.open_json():  # finds values that JSON cannot represent before anything is computed
            pass

    def batches(self, columns: list[str] | None) -> Iterator[Any]:
        """Yield record batches of a bounded number of rows."""
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(_ROWS_AT_A_TIME, columns=columns)
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path}: {error}") from error


def _is_text(kind: Any) -> bool:
    # Polars writes views. An older pyarrow has no such type, and reads them as strings.
    is_string_view = getattr(pa.types, "is_string_view", lambda _: False)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_string_view(kind)


def _cells(batch: Any, index: int) -> Iterator[tuple[str, Any]]:
    return zip(batch.schema.names, (column[index] for column in batch.columns), strict=True)


def output_schema(rows: Rows) -> Any:
    """Return the schema of the input's own columns; for JSONL it takes a pass over the file.

    Raises:
        ConfigurationError: JSONL fields have values that no common column type holds.
    """
    if isinstance(rows, ParquetRows):
        return rows.schema
    if not isinstance(rows, JsonlRows):
        return pa.schema([(rows.field, pa.string())])
    schema = pa.schema([])
    with _as_configuration_error(rows):
        for records in _grouped(rows.records()):
            names = dict.fromkeys(name for record in records for name in record)
            found = [(name, pa.array([record.get(name) for record in records]).type) for name in names]
            schema = pa.unify_schemas([schema, pa.schema(found)], promote_options="permissive")
        # A later row may have widened a column so that it no longer holds an earlier row's value,
        # and some types exist in memory but not in the format, such as a struct without fields.
        for records in _grouped(rows.records()):
            _table(records, schema)
        pq.write_table(schema.empty_table(), pa.BufferOutputStream())
    return schema


@contextlib.contextmanager
def _as_configuration_error(rows: JsonlRows) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise rows.row_error(
            _first_with_surrogate(rows),
            "has a field with a lone surrogate, which no Parquet column holds; write .jsonl",
        ) from error
    except (pa.ArrowException, OverflowError) as error:
        raise ConfigurationError(
            f"rows of {rows.path} have fields that no Parquet column holds ({error}); write .jsonl"
        ) from error


def _first_with_surrogate(rows: JsonlRows) -> int:
    """Return the number of the first row that holds what cannot be written as UTF-8, in names or values."""
    for number, record in enumerate(rows.records()):
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return number
    raise AssertionError("Arrow refused a string that is valid Unicode")


def _table(records: list[dict[str, Any]], schema: Any) -> Any:
    columns = [pa.array([record.get(field.name) for record in records], type=field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def write_parquet(
    path: Path, rows: Rows, schema: Any, parts: Iterator[NDArray[Any]], columns: int, dtype: np.dtype[Any]
) -> None:
    """Write the input's columns and `embedding`, a fixed-size list, one row group per part."""
    vector = pa.list_(pa.from_numpy_dtype(dtype), columns)
    tables = _Tables(rows, schema)
    with pq.ParquetWriter(path, schema.append(pa.field(EMBEDDING_FIELD, vector))) as writer:
        for vectors in parts:
            flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
            embedding = pa.FixedSizeListArray.from_arrays(flat, columns)
            table = tables.take(len(vectors))
            writer.write_table(table.append_column(pa.field(EMBEDDING_FIELD, vector), embedding))


class _Tables:
    """The input's rows as consecutive tables, each of the size that is asked for."""

    def __init__(self, rows: Rows, schema: Any) -> None:
        self._schema = schema
        self._batches = rows.batches(None) if isinstance(rows, ParquetRows) else None
        self._records = _records(rows) if self._batches is None else iter(())
        self._left: Any = pa.Table.from_batches([], schema)

    def take(self, count: int) -> Any:
        if self._batches is None:
            return _table(list(islice(self._records, count)), self._schema)
        while len(self._left) < count:
            batch = pa.Table.from_batches([next(self._batches)])
            self._left = pa.concat_tables([self._left, batch.cast(self._schema)])
        taken, self._left = self._left.slice(0, count), self._left.slice(count)
        return taken


def _records(rows: Rows) -> Iterator[dict[str, Any]]:
    if isinstance(rows, JsonlRows):
        return rows.records()
    return ({rows.field: text} for text in rows.texts())


def _grouped(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(records, _ROWS_AT_A_TIME)):
        yield group
