"""From finished parts to the output file, with one part in memory at a time."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.cli.files import add_path_if_disk_full, force_to_disk, publish
from qwen3_rag.cli.parts import Parts
from qwen3_rag.cli.rows import EMBEDDING_FIELD, JSONL_ENDINGS, Rows
from qwen3_rag.errors import ConfigurationError

OUTPUT_ENDINGS: Final = (".npy", *JSONL_ENDINGS, ".parquet")

_DIGITS: Final = {"float32": "%.9g", "float16": "%.5g"}
"""As many significant digits as it takes to read back the same value."""


def check_output(output: Path) -> None:
    """Refuse an output that could not be written, before any work is done.

    Raises:
        ConfigurationError: its format is not known, or it is a folder.
        MissingExtraError: it needs pyarrow, which is not installed.
    """
    if output.suffix.lower() not in OUTPUT_ENDINGS:
        raise ConfigurationError(f"cannot write {output}: outputs end in {', '.join(OUTPUT_ENDINGS)}")
    if output.is_dir():
        raise ConfigurationError(f"cannot write {output}: it is a folder")
    if output.suffix.lower() == ".parquet":
        import qwen3_rag.cli.parquet  # noqa: F401


def assemble(output: Path, rows: Rows, count: int, parts: Parts, part_count: int, schema: Any) -> None:
    """Write the output from all parts, then rename it atomically.

    Args:
        output: final file; an existing one is replaced.
        rows: the input, read again for its own fields.
        count: how many rows there are.
        parts: all of them done.
        part_count: how many parts there are.
        schema: for Parquet, what `output_schema` returned.
    """
    temporary = _write(output, rows, count, parts, part_count, schema)
    force_to_disk(temporary)
    publish(temporary, output)


def is_assembled(output: Path, rows: Rows, count: int, parts: Parts, part_count: int, schema: Any) -> bool:
    """Whether an existing output is, byte for byte, what `assemble` would write; the arguments are the same."""
    temporary = _write(output, rows, count, parts, part_count, schema)
    try:
        return filecmp.cmp(temporary, output, shallow=False)
    finally:
        temporary.unlink()


def _write(output: Path, rows: Rows, count: int, parts: Parts, part_count: int, schema: Any) -> Path:
    """Write the output's content to `parts.assembled`, and return that path."""
    first = parts.read(0).vectors
    columns, dtype = first.shape[1], first.dtype
    vectors = (parts.read(number).vectors for number in range(part_count))
    temporary = parts.assembled
    with add_path_if_disk_full(temporary):
        if output.suffix.lower() == ".npy":
            _write_npy(temporary, vectors, (count, columns), dtype)
        elif output.suffix.lower() in JSONL_ENDINGS:
            _write_jsonl(temporary, rows, vectors)
        else:
            from qwen3_rag.cli.parquet import write_parquet

            write_parquet(temporary, rows, schema, vectors, columns, dtype)
    return temporary


def _write_npy(path: Path, parts: Iterator[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Write header and rows. Not through a memory map: with one, a full disk kills the process (SIGBUS)."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for vectors in parts:
            file.write(np.ascontiguousarray(vectors).data)


def _write_jsonl(path: Path, rows: Rows, parts: Iterator[NDArray[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        all_vectors = (vector for vectors in parts for vector in vectors)
        for row, vector in zip(rows.open_json(), all_vectors, strict=True):
            digits = _DIGITS.get(vector.dtype.name, "%d")
            numbers = ", ".join([digits % number for number in vector.tolist()])
            file.write(f'{row}, "{EMBEDDING_FIELD}": [{numbers}]}}\n')
