"""Small batches as CUDA graphs: recorded once for each of a few shapes, then started as a whole.

A query's forward pass is hundreds of kernels of a few microseconds, and starting them one by one takes longer
than they run. A graph starts all of them at once, but it repeats what was recorded, on the same memory, with
the same shapes. So a batch is padded to a shape that recurs, by segments of their own that nobody reads, and
its ids, positions and offsets are copied to where the recorded kernels read them.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.device.memory import CAPTURING
from qwen3_rag.backends.transformers.kernels import VarlenKernel
from qwen3_rag.backends.transformers.layout import DeviceBatch, device_batch, host_rows, upload, views
from qwen3_rag.plan import PackedBatch, Segment
from qwen3_rag.tokens import TokenIds

_ROWS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_SEGMENTS: Final = (1, 2, 4, 8, 16)
"""Shapes that are recorded, padding not counted among the segments. Chosen, not tuned: no GPU was to be had."""

_MOST_TOKENS: Final = _ROWS[-1] - _SEGMENTS[-1]
"""Of a batch whose padding is sure to find room."""

Run = Callable[[], Tensor]
Record = Callable[[Run], Run]
"""From a computation to one that repeats it on the same memory, and returns the same tensor each time."""


@dataclass(frozen=True)
class _Recorded:
    """A shape's graph.

    Attributes:
        inputs: int32; what the graph reads of a batch.
        replay: starts it.
    """

    inputs: Tensor
    replay: Run


class Graphs:
    """Graphs by shape, each recorded when it is first needed.

    Args:
        forward: from a batch to a row or number for each of its sequences; waits for nothing on the host.
        device: where it runs.
        kernel: attention within spans.
        record: makes a graph.
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

    def suit(self, sequences: Sequence[TokenIds]) -> bool:
        """Whether sequences that share no prefix are one batch that has a graph, if its shape can be recorded.

        Then sharing would only keep them from it: so few tokens take no longer than fewer.
        """
        few = len(sequences) <= _SEGMENTS[-1] and sum(map(len, sequences)) <= _MOST_TOKENS
        return few and not self._gave_up

    def run(self, batch: PackedBatch) -> Tensor | None:
        """Return what `forward` gives for a batch; None if it has no graph.

        It has none if it is large or shares a prefix, and once a shape could not be recorded, which is warned
        of: after a capture that failed PyTorch's allocator may give no memory back, and another would fail too.
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
            right = torch.allclose(found, expected, rtol=2e-2, atol=2e-2)
        except Exception as error:  # whatever a capture raises
            reason = f"{type(error).__name__}: {error}"
        else:
            if right:
                return _Recorded(inputs, replay)
            reason = "it gives other numbers"
        warnings.warn(
            f"batches run without CUDA graphs, since one of {count} tokens failed: {reason}", stacklevel=2
        )
        return None


def recorded_shape(batch: PackedBatch) -> tuple[int, int] | None:
    """Return rows and segments, padding included, of the graph that a batch is run by; None if by none."""
    count = len(batch.segments)
    if count > _SEGMENTS[-1] or any(segment.parent is not None for segment in batch.segments):
        return None
    segments = _SEGMENTS[bisect_left(_SEGMENTS, count)] + 1
    place = bisect_left(_ROWS, len(batch.token_ids) + segments - count)
    return (_ROWS[place], segments) if place < len(_ROWS) else None


def padded(batch: PackedBatch, rows: int, segments: int) -> PackedBatch:
    """Return a batch with more segments behind its own, each of one row but the last.

    Each segment is a sequence of the result, in their order.

    Args:
        batch: without prefixes.
        rows: of the result.
        segments: of the result: more than the batch has, and no more of them than rows are added.
    """
    start, added = len(batch.token_ids), segments - len(batch.segments)
    stops = [*range(start + 1, start + added), rows]
    padding = [Segment(a, b, None) for a, b in zip([start, *stops], stops, strict=False)]
    all_segments = (*batch.segments, *padding)
    nothing = np.zeros(rows - start, dtype=np.int32)
    return PackedBatch(
        np.concatenate([batch.token_ids, nothing]),
        np.concatenate([batch.position_ids, nothing]),
        all_segments,
        np.array([segment.stop - 1 for segment in all_segments], dtype=np.int64),
        np.arange(segments, dtype=np.int64),
        np.array([segment.stop - segment.start for segment in all_segments], dtype=np.int64),
    )


class CudaRecorder:
    """Records CUDA graphs of one device, which share the memory of all that is not their result.

    Args:
        device: theirs.
    """

    def __init__(self, device: torch.device) -> None:
        # The memory that libraries keep for a stream is a graph's own only if it is taken during a capture.
        # Were streams the same, whoever frees that of the warm-up would free it under the graphs.
        self._warm_up, self._stream = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.cuda.device(self._stream.device):
            self._warm_up.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._warm_up):
                for _ in range(2):  # libraries make their workspaces, and compilers their kernels, at first
                    run()
            self._stream.wait_stream(self._warm_up)
            with (
                # A capture that fails leaves its stream as the current one: this puts back what was before.
                torch.cuda.stream(self._stream),
                # Errors of this thread alone: others use the device meanwhile.
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                result = run()
            torch.cuda.current_stream().wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
