"""From last-token hidden states to the vectors a user gets: cut, normalise, quantise. Pure numpy.

One rule for every backend: the Matryoshka cut comes first, normalisation second.
"""

from __future__ import annotations

import warnings
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.errors import BackendError, ConfigurationError
from qwen3_rag.inputs import as_int
from qwen3_rag.stacklevel import caller_stacklevel

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""Element type of returned vectors, with the meaning Sentence Transformers gives these names."""

MIN_DIMENSIONS: Final = 32
"""Smallest Matryoshka dimension that the published models were trained for (model cards)."""

_CALIBRATION_ROWS: Final = 100
"""Fewer rows than this make poor int8 ranges; Sentence Transformers warns at the same number."""


def parse_dimensions(dimensions: int | None) -> int | None:
    """Return the vector length that is asked for, checked as far as it can be without a checkpoint.

    Raises:
        TypeError: not a whole number.
        ConfigurationError: less than 32.
    """
    if dimensions is None:
        return None
    length = as_int("dimensions", dimensions, "a whole number or None")
    if length < MIN_DIMENSIONS:
        raise ConfigurationError(
            f"dimensions must be {MIN_DIMENSIONS} or more, at most the model's hidden size, or None for all, "
            f"got {length}"
        )
    return length


def resolve_dimensions(dimensions: int | None, hidden_size: int) -> int:
    """Return the vector length to cut to; None means the model's own.

    Raises:
        ConfigurationError: not within 32 and the model's hidden size.
    """
    if dimensions is None:
        return hidden_size
    if not MIN_DIMENSIONS <= dimensions <= hidden_size:
        raise ConfigurationError(
            f"dimensions must be {MIN_DIMENSIONS} to {hidden_size} (the model's hidden size), got {dimensions}"
        )
    return dimensions


def check_precision(precision: Precision) -> None:
    """Raise ConfigurationError unless the name is one of `Precision`."""
    if precision not in get_args(Precision):
        raise ConfigurationError(f"precision must be one of {get_args(Precision)}, got {precision!r}")


def as_rows(values: NDArray[np.float32], hidden_size: int) -> NDArray[np.float32]:
    """Return a backend's values of some texts, perhaps of none, as an array of shape (n, hidden_size).

    Raises:
        BackendError: they are of another length.
    """
    if len(values) and values.shape[1:] != (hidden_size,):
        raise BackendError(
            f"the backend gave values of shape {values.shape}; the model's vectors have {hidden_size} numbers"
        )
    return values.reshape(-1, hidden_size)


def cut_and_normalise(hidden: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Return the first `dimensions` columns of `hidden` (n, hidden_size), rows scaled to L2 norm 1."""
    cut = hidden[:, :dimensions].astype(np.float32, copy=True)
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    # An all-zero row has no direction; it stays zero, as torch.nn.functional.normalize leaves it.
    np.divide(cut, norms, out=cut, where=norms > 0)
    return cut


def quantize(
    vectors: NDArray[np.float32], precision: Precision, ranges: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """Convert unit vectors (n, d) to another element type.

    Args:
        vectors: float32, shape (n, d).
        precision: "float32" and "float16" convert; "int8" and "uint8" spread each column's range
            over 256 steps; "binary" and "ubinary" keep the sign, eight columns to a byte (d / 8
            columns, rounded up), "binary" shifted by -128 into int8.
        ranges: for int8 and uint8 the lowest and highest value of each column, float32 of shape
            (2, d), measured once on a sample of your corpus. None measures them on `vectors`
            themselves: then values of two calls cannot be compared.

    Returns:
        float32, float16, int8 or uint8 of shape (n, d); "binary" is int8 and "ubinary" uint8, both of shape
        (n, ceil(d / 8)).

    Raises:
        ConfigurationError: unknown precision, or `ranges` of another shape, not finite, or upside down.
        TypeError: `ranges` is not numeric.
    """
    check_precision(precision)
    ranges = checked_ranges(ranges)
    warn_if_few_vectors(len(vectors), precision, ranges)
    check_range_columns(ranges, vectors.shape[1])
    return convert_precision(vectors, precision, ranges)


def checked_ranges(ranges: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Return a copy of ranges, checked as far as that can be without vectors.

    Raises:
        ConfigurationError: not two rows, not finite, or a lowest value above the highest.
        TypeError: not numeric.
    """
    if ranges is None:
        return None
    try:
        own = np.array(ranges, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"ranges must be an array of shape (2, columns) or None, got {ranges!r:.80}") from error
    if own.ndim != 2 or len(own) != 2:
        raise _shape_error("columns", own)
    wrong = ~(np.isfinite(own).all(axis=0) & (own[0] <= own[1]))
    if wrong.any():
        column = int(wrong.argmax())
        raise ConfigurationError(
            "ranges must hold the lowest value of each column, then the highest, all of them finite; column "
            f"{column} has {own[0, column]} and {own[1, column]}"
        )
    return own


def check_range_columns(ranges: NDArray[np.float32] | None, columns: int) -> None:
    """Raise ConfigurationError unless ranges are for so many columns."""
    if ranges is not None and ranges.shape[1] != columns:
        raise _shape_error(columns, ranges)


def _shape_error(columns: int | str, ranges: NDArray[np.float32]) -> ConfigurationError:
    return ConfigurationError(
        f"ranges must have shape (2, {columns}): lowest and highest value of each column, got {ranges.shape}"
    )


def warn_if_few_vectors(count: int, precision: Precision, ranges: NDArray[np.float32] | None) -> None:
    """Warn whoever called this package if `count` vectors make poor ranges for int8 or uint8."""
    if ranges is None and precision in ("int8", "uint8") and 0 < count < _CALIBRATION_ROWS:
        warnings.warn(
            f"int8/uint8 ranges measured on only {count} vectors; measure them once on at least "
            f"{_CALIBRATION_ROWS} and pass ranges=",
            stacklevel=caller_stacklevel(),
        )


def convert_precision(
    vectors: NDArray[np.float32], precision: Precision, ranges: NDArray[np.float32] | None
) -> NDArray[Any]:
    """`quantize` of what is checked, without its warning."""
    if precision == "float32":
        return vectors
    if precision == "float16":
        return vectors.astype(np.float16)
    if precision in ("binary", "ubinary"):
        packed: NDArray[np.uint8] = np.packbits(vectors > 0, axis=1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    low, step = _steps(vectors, ranges)
    # The fraction is dropped before the shift: all levels are equally wide (as in Sentence Transformers 6.2).
    levels: NDArray[np.uint8] = np.clip((vectors - low) / step, 0, 255).astype(np.uint8)
    return levels if precision == "uint8" else (levels.astype(np.int16) - 128).astype(np.int8)


def _steps(
    vectors: NDArray[np.float32], ranges: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if ranges is None:
        if len(vectors) == 0:
            return np.zeros(vectors.shape[1], np.float32), np.ones(vectors.shape[1], np.float32)
        ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    step = (ranges[1] - ranges[0]) / 255
    return ranges[0], np.where(step > 0, step, np.float32(1))
