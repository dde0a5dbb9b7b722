"""Small batches as CUDA graphs: recorded once for each of a few shapes, then replayed.

A query's forward pass is hundreds of kernels of a few microseconds, and launching them one by one takes longer
than they run. A graph launches all of them at once, but always with the same shapes and on the same memory. So
a batch is padded to one of a few shapes, by extra segments whose output is ignored, and its ids, positions and
offsets are copied to where the recorded kernels read them.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.device.memory import CAPTURING
from qwen3_rag.backends.transformers.kernels import VarlenKernel
from qwen3_rag.backends.transformers.layout import DeviceBatch, device_batch, host_rows, upload, views
from qwen3_rag.plan import PackedBatch, Segment
from qwen3_rag.tokens import TokenIds

_ROWS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Row counts of recorded shapes. Chosen, not tuned on a GPU."""

_SEGMENTS: Final = (1, 2, 4, 8, 16)
"""Segment counts of recorded shapes, without the padding's. Chosen, not tuned on a GPU."""

_MAX_TOKENS: Final = _ROWS[-1] - _SEGMENTS[-1]
"""Of a batch: there is room for its padding whatever its segment count."""

_TOLERANCE: Final = 2e-2
"""Relative and absolute difference to the eager output that is accepted, a few units in the last place of
bfloat16. Chosen, not tuned."""

Run = Callable[[], Tensor]
"""A computation."""

Record = Callable[[Run], Run]
"""From a computation to one that repeats it on the same memory, and returns the same tensor each time."""


@dataclass(frozen=True)
class _Recorded:
    """A shape's graph.

    Attributes:
        inputs: int32, shape (integers,); what the graph reads of a batch, see `host_rows`.
        replay: launches it.
    """

    inputs: Tensor
    replay: Run


class Graphs:
    """Graphs by shape, each recorded when it is first needed.

    Args:
        forward: from a batch to the values of its sequences, shape (n, ...); must not synchronise with the
            host.
        device: where it runs.
        kernel: attention within spans.
        record: captures a graph.
    """

    def __init__(
        self,
        forward: Callable[[DeviceBatch], Tensor],
        device: torch.device,
        kernel: VarlenKernel,
        record: Record,
    ) -> None:
        self._forward = forward
        self._device = device
        self._kernel = kernel
        self._record = record
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._gave_up = False

    def fits(self, sequences: Sequence[TokenIds]) -> bool:
        """Whether these sequences, without shared prefixes, form one batch small enough for a graph.

        Sharing prefixes would prevent that, and saves no time at this size.
        """
        is_small = len(sequences) <= _SEGMENTS[-1] and sum(map(len, sequences)) <= _MAX_TOKENS
        return is_small and not self._gave_up

    def run(self, batch: PackedBatch) -> Tensor | None:
        """Return what `forward` computes for a batch; None if no graph can run it.

        That is so if it is large or shares a prefix, and for all batches once recording has failed, which is
        warned of: after a failed capture PyTorch's allocator may keep its memory, and the next capture would
        fail too.
        """
        shape = recorded_shape(batch)
        if shape is None or self._gave_up:
            return None
        full = padded(batch, *shape)
        recorded = self._recorded.get(shape)
        if recorded is None:
            recorded = self._record_shape(full)
            if recorded is None:
                self._gave_up = True
                return None
            self._recorded[shape] = recorded
        ends = np.array([segment.stop - 1 for segment in batch.segments])
        asked = upload({"rows": np.searchsorted(ends, batch.last_rows).astype(np.int32)}, self._device)
        upload(host_rows(full, self._kernel), self._device, recorded.inputs)
        # A copy: the next replay writes to the same memory.
        return recorded.replay().index_select(0, asked)

    def _record_shape(self, batch: PackedBatch) -> _Recorded | None:
        rows, count = host_rows(batch, self._kernel), len(batch.token_ids)
        inputs = upload(rows, self._device)
        moved = device_batch(batch, views(rows, inputs), self._kernel, longest=count)
        run = partial(self._forward, moved)
        try:
            replay = self._record(run)
            found, expected = replay(), run()
            agrees = torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
        except Exception as error:  # a capture may raise anything
            reason = f"{type(error).__name__}: {error}"
        else:
            if agrees:
                return _Recorded(inputs, replay)
            reason = "its output differs from the eager one"
        warnings.warn(
            f"CUDA graphs are off: recording a batch of {count} tokens failed: {reason}", stacklevel=2
        )
        return None


def recorded_shape(batch: PackedBatch) -> tuple[int, int] | None:
    """Return rows and segments, padding included, of the graph that runs a batch; None if there is none."""
    count = len(batch.segments)
    if count > _SEGMENTS[-1] or any(segment.parent is not None for segment in batch.segments):
        return None
    segments = _SEGMENTS[bisect_left(_SEGMENTS, count)] + 1
    index = bisect_left(_ROWS, len(batch.token_ids) + segments - count)
    return (_ROWS[index], segments) if index < len(_ROWS) else None


def padded(batch: PackedBatch, rows: int, segments: int) -> PackedBatch:
    """Return a batch padded with segments behind its own, of one row each except the last.

    Each segment is a sequence of the result, in order.

    Args:
        batch: without shared prefixes.
        rows: of the result.
        segments: of the result; more than the batch has, by at most the number of added rows.
    """
    start, added = len(batch.token_ids), segments - len(batch.segments)
    stops = [*range(start + 1, start + added), rows]
    padding = [Segment(a, b, None) for a, b in zip([start, *stops], stops, strict=False)]
    all_segments = (*batch.segments, *padding)
    zeros = np.zeros(rows - start, dtype=np.int32)
    return PackedBatch(
        np.concatenate([batch.token_ids, zeros]),
        np.concatenate([batch.position_ids, zeros]),
        all_segments,
        np.array([segment.stop - 1 for segment in all_segments], dtype=np.int64),
        np.arange(segments, dtype=np.int64),
        np.array([segment.stop - segment.start for segment in all_segments], dtype=np.int64),
    )


class CudaRecorder:
    """Records CUDA graphs of one device, which share a memory pool for intermediate results.

    Args:
        device: of the graphs.
    """

    def __init__(self, device: torch.device) -> None:
        # Libraries allocate a workspace per stream, which belongs to a graph's pool only if that happens during
        # the capture. With one stream for both, the graphs would use the warm-up's, which may be freed.
        self._warm_up, self._stream = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.cuda.device(self._stream.device):
            current = torch.cuda.current_stream()
            self._warm_up.wait_stream(current)
            try:
                with torch.cuda.stream(self._warm_up):
                    for _ in range(2):  # first calls allocate libraries' workspaces and compile kernels
                        run()
            finally:
                # Also if they failed: the memory that they read may be freed then, and used for something else.
                current.wait_stream(self._warm_up)
            self._stream.wait_stream(self._warm_up)
            try:
                with (
                    # A failed capture leaves its stream the current one: this restores the previous one.
                    torch.cuda.stream(self._stream),
                    # "thread_local": other threads may use the device meanwhile without failing the capture.
                    torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
                ):
                    result = run()
            except BaseException:
                _end_failed_capture(self._stream.device, self._pool)
                raise
            current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def _end_failed_capture(device: torch.device, pool: Any) -> None:
    """Tell PyTorch's allocator that a capture has ended.

    If CUDA calls the capture invalid, some releases (2.11 is one) do not tell it (pytorch/pytorch#180395). Then
    the cache can't be emptied any more, which raises: whenever memory runs out, and when a model is closed.
    """
    with suppress(Exception):  # it has been told, or this private function is gone
        torch._C._cuda_endAllocateToPool(device.index, pool)
