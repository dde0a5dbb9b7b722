"""A packed batch on the model's device: its tokens, and which of them attend to which.

Every layer but the last attends from all tokens; the last one only from each segment's last token, since
nothing else of its output is read. Both layouts have the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.transformers.kernel_layout import KernelLayout, kernel_layouts, kernel_rows
from qwen3_rag.backends.transformers.kernels import VarlenKernel
from qwen3_rag.backends.transformers.rows import Rows
from qwen3_rag.backends.transformers.segment_layout import SegmentLayout, segment_layouts, segment_rows
from qwen3_rag.plan import PackedBatch

Layout = SegmentLayout | KernelLayout


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on a device of the model.

    Attributes:
        input_ids, position_ids: int32, shape (rows,); the tokens to compute, then padding, whose output is
            ignored.
        segment_ends: int32, shape (segments,) or padded to more; the row of each segment's last token.
        sequence_ends: int32, shape (n,); the segment that each sequence ends with. Several may share one.
        layout: for attention from all tokens.
        ends_layout: for attention from the segments' last tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ends: Tensor
    sequence_ends: Tensor
    layout: Layout
    ends_layout: Layout


def to_device(
    batch: PackedBatch,
    device: torch.device,
    kernel: VarlenKernel | None,
    past_tokens: int = 0,
    rows_for: Callable[[int], int] | None = None,
) -> DeviceBatch:
    """Move a batch and its layouts to a device, in one transfer.

    Args:
        batch: the batch.
        device: where to.
        kernel: FlashAttention over spans; None: attention runs segment by segment.
        past_tokens: leading tokens whose keys and values are cached: fewer than the first segment has, which
            must be the only root. Only without a kernel.
        rows_for: from a row count to the one to pad to; None: no padding.
    """
    rows = host_rows(batch, kernel, past_tokens)
    if rows_for is not None:
        for name in ("ids", "positions", "ends"):
            rows[name] = _zero_padded(rows[name], rows_for(len(rows[name])))
    return device_batch(batch, views(rows, upload(rows, device)), kernel, past_tokens)


def host_rows(batch: PackedBatch, kernel: VarlenKernel | None, past_tokens: int = 0) -> dict[str, Rows]:
    """Return all integers of a batch that its device needs, by name; for the arguments see `to_device`.

    They are `ids`, `positions`, `ends` and `sequences`, in the order of `DeviceBatch`, and those of
    `kernel_rows` or `segment_rows`.
    """
    assert not past_tokens or kernel is None
    ends = np.array([segment.stop - 1 for segment in batch.segments], dtype=np.int32)
    rows: dict[str, Rows] = {
        "ids": batch.token_ids[past_tokens:],
        "positions": batch.position_ids[past_tokens:],
        "ends": ends - past_tokens,
        "sequences": np.searchsorted(ends, batch.last_rows).astype(np.int32),
    }
    return rows | (segment_rows(batch.segments) if kernel is None else kernel_rows(batch.segments))


def device_batch(
    batch: PackedBatch,
    moved: dict[str, Tensor],
    kernel: VarlenKernel | None,
    past_tokens: int = 0,
    longest: int | None = None,
) -> DeviceBatch:
    """Build a batch from its integers on a device.

    Args:
        batch: the batch.
        moved: the result of `host_rows`, on the device.
        kernel: see `to_device`.
        past_tokens: see `to_device`.
        longest: see `kernel_layouts`.
    """
    layouts: tuple[Layout, Layout]
    if kernel is None:
        layouts = segment_layouts(batch.segments, moved, past_tokens)
    else:
        layouts = kernel_layouts(batch.segments, moved, kernel, longest)
    return DeviceBatch(moved["ids"], moved["positions"], moved["ends"], moved["sequences"], *layouts)


def upload(rows: dict[str, Rows], device: torch.device, out: Tensor | None = None) -> Tensor:
    """Copy integers to a device as one int32 tensor; on CUDA asynchronously.

    Args:
        rows: the integers.
        device: where to.
        out: int32, a tensor there for all of them; None allocates one.
    """
    flat = torch.from_numpy(np.concatenate(list(rows.values())).astype(np.int32, copy=False))
    # Outside CUDA a non-blocking copy may read host memory that has already been freed.
    on_cuda = device.type == "cuda"
    if on_cuda:
        flat = flat.pin_memory()
    return flat.to(device, non_blocking=on_cuda) if out is None else out.copy_(flat, non_blocking=on_cuda)


def views(rows: dict[str, Rows], uploaded: Tensor) -> dict[str, Tensor]:
    """Split the result of `upload` into the parts that it joined, by name."""
    pieces = torch.split(uploaded, [len(part) for part in rows.values()])
    return dict(zip(rows, pieces, strict=True))


def _zero_padded(rows: Rows, count: int) -> Rows:
    padded = np.zeros(count, dtype=np.int32)
    padded[: len(rows)] = rows
    return padded
