"""Small batches run as graphs give what they give without; what can't be recorded runs as before.

A GPU is not to be had everywhere, so a stand-in repeats what was recorded as a CUDA graph does: the same
operations on the same memory, whatever Python would have done, and never a look at a number.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.backends.transformers import backend, packed_linear
from qwen3_rag.backends.transformers.graphs import (
    CudaRecorder,
    Graphs,
    Record,
    Run,
    padded,
    recorded_shape,
)
from qwen3_rag.backends.transformers.kernels import Spans
from qwen3_rag.backends.transformers.layout import to_device
from qwen3_rag.backends.transformers.loading import LoadedModel
from qwen3_rag.backends.transformers.prefix_cache import PrefixCache
from qwen3_rag.plan import plan_batches
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
TEXTS = ["gravity", "", "the capital of China is Beijing", "a b c " * 40, "why do stars shine?"]


class Recording(TorchDispatchMode):
    """Notes every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def repeat(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            for old, new in zip(tree_leaves(recorded), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def stand_in(run: Run) -> Run:
    with Recording() as recording:
        result = run()

    def replay() -> Tensor:
        result.fill_(float("nan"))
        recording.repeat()
        return result

    return replay


def masked_kernel(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention within spans that reads no number on the host."""
    assert spans.longest_key >= len(key)  # one bound for all batches of a shape
    rows, columns = torch.arange(len(query)), torch.arange(len(key))
    own = torch.searchsorted(spans.query_offsets, rows, right=True)
    visible = own[:, None] == torch.searchsorted(spans.key_offsets, columns, right=True)
    if causal:
        visible &= rows[:, None] >= columns
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    scores = torch.einsum("qhd,khd->qhk", query, key) * scale
    scores = scores.masked_fill(~visible[:, None], float("-inf"))
    return torch.einsum("qhk,khd->qhd", scores.softmax(-1), value), scores.logsumexp(-1)


def with_graphs(component: Any, record: Record = stand_in) -> Any:
    """Give a loaded component's backend graphs, as on a GPU."""
    loaded = component.load().backend
    loaded._prefix_cache = PrefixCache(0)
    loaded._graphs = Graphs(lambda batch: loaded._values(lambda _: batch), CPU, masked_kernel, record)
    return component


@pytest.fixture(autouse=True)
def plain_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "packing_works", lambda _: False)  # as on a GPU


@cache
def embedder(folder: Path, graphed: bool) -> Embedder:
    made = Embedder(str(folder), token_budget=5_001 if graphed else 5_002, **OPTIONS)
    return with_graphs(made) if graphed else made


@cache
def reranker(folder: Path, graphed: bool) -> Reranker:
    made = Reranker(str(folder), token_budget=5_001 if graphed else 5_002, **OPTIONS)
    return with_graphs(made) if graphed else made


def graphs_of(component: Any) -> Graphs:
    graphs = component.load().backend._graphs
    assert isinstance(graphs, Graphs)
    return graphs


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6), min_size=1, max_size=4))
def test_vectors_are_those_without_graphs(embedding_checkpoint: Path, calls: list[list[str]]) -> None:
    ours, theirs = embedder(embedding_checkpoint, True), embedder(embedding_checkpoint, False)
    for texts in calls:
        np.testing.assert_allclose(ours.embed_queries(texts), theirs.embed_queries(texts), rtol=0, atol=1e-5)


def test_scores_are_those_without_graphs(reranking_checkpoint: Path) -> None:
    ours, theirs = reranker(reranking_checkpoint, True), reranker(reranking_checkpoint, False)
    for query in TEXTS:
        np.testing.assert_allclose(ours.score(query, TEXTS[:3]), theirs.score(query, TEXTS[:3]), atol=1e-5)
    assert len(graphs_of(ours)._recorded) >= 1


def counting(calls: list[int]) -> Record:
    def record(run: Run) -> Run:
        replay = stand_in(run)
        calls.append(0)
        place = len(calls) - 1

        def counted() -> Tensor:
            calls[place] += 1
            return replay()

        return counted

    return record


def test_a_shape_is_recorded_once(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    with with_graphs(
        Embedder(str(embedding_checkpoint), token_budget=5_003, **OPTIONS), counting(calls)
    ) as made:
        for word in ("sun", "moon", "sea", "sky"):
            made.embed_documents([word])
        assert calls == [5], "recorded, compared once, run four times"
        made.embed_documents(["many words " * 20])
        assert calls == [5, 2]
        monkeypatch.setattr(made.load().backend, "_values", None)  # what is recorded needs it no more
        made.embed_documents(["star"])
        assert calls == [6, 2]


def test_an_earlier_result_is_not_overwritten(embedding_checkpoint: Path) -> None:
    graphs = graphs_of(embedder(embedding_checkpoint, True))
    batches = [next(iter(plan_batches([np.array(ids, np.int32)], token_budget=99))) for ids in ([1, 2], [3, 4])]
    with torch.inference_mode():
        first = graphs.run(batches[0])
        assert first is not None
        before = first.clone()
        second = graphs.run(batches[1])
    assert second is not None
    assert torch.equal(first, before)
    assert not torch.allclose(first, second)


def test_identical_sequences_are_one_segment(embedding_checkpoint: Path) -> None:
    graphs = graphs_of(embedder(embedding_checkpoint, True))
    (batch,) = plan_batches([np.array(ids, np.int32) for ids in ([5, 6], [3], [5, 6], [7])], token_budget=99)
    assert len(batch.segments) == 3
    with torch.inference_mode():
        found = graphs.run(batch)
        expected = graphs._forward(to_device(batch, CPU, None))
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_large_batches_have_no_graph(embedding_checkpoint: Path) -> None:
    ours, theirs = embedder(embedding_checkpoint, True), embedder(embedding_checkpoint, False)
    before = dict(graphs_of(ours)._recorded)
    for texts in (["long " * 600], [f"text {i}" for i in range(17)], ["half " * 300, "half of " * 150]):
        np.testing.assert_allclose(ours.embed_documents(texts), theirs.embed_documents(texts), atol=1e-5)
    assert graphs_of(ours)._recorded == before


def forgetful(run: Run) -> Run:
    """Gives what was recorded, whatever came after."""
    result = run()
    return lambda: torch.zeros_like(result)


def refusing(_: Run) -> Run:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("record", "reason"),
    [(forgetful, "differs from the eager one"), (refusing, "RuntimeError: operation not permitted")],
)
def test_what_cannot_be_recorded_runs_without(record: Record, reason: str, embedding_checkpoint: Path) -> None:
    expected = embedder(embedding_checkpoint, False).embed_queries(["gravity"])
    with with_graphs(Embedder(str(embedding_checkpoint), token_budget=5_004, **OPTIONS), record) as made:
        with pytest.warns(UserWarning, match=reason):
            found = made.embed_queries(["gravity"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = made.embed_queries(["gravity"])
            made.embed_queries(["another shape " * 20])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found, again)


def test_the_stand_in_refuses_to_read_a_number() -> None:
    tensor = torch.ones(3)
    with pytest.raises(RuntimeError, match="capturing"):
        stand_in(lambda: tensor * tensor.sum().item())


@given(st.lists(st.integers(1, 120), min_size=1, max_size=20))
@example([16])
@example([120, 120, 120, 120, 15])
def test_padding_leaves_the_batch_as_it_is(lengths: list[int]) -> None:
    sequences = [np.arange(1, length + 1, dtype=np.int32) + 1000 * i for i, length in enumerate(lengths)]
    (batch,) = plan_batches(sequences, token_budget=1 << 20, share_prefixes=False)
    shape = recorded_shape(batch)
    if shape is None:
        assert len(lengths) > 16 or sum(lengths) > 512 - 16
        return
    full = padded(batch, *shape)
    count, tokens = len(batch.segments), len(batch.token_ids)
    assert (len(full.token_ids), len(full.segments)) == shape
    assert full.segments[:count] == batch.segments
    assert [s.start for s in full.segments[1:]] == [s.stop for s in full.segments[:-1]]
    assert all(s.start < s.stop and s.parent is None for s in full.segments)
    assert full.segments[-1].stop == len(full.token_ids) == len(full.position_ids)
    np.testing.assert_array_equal(full.token_ids[:tokens], batch.token_ids)
    np.testing.assert_array_equal(full.position_ids[:tokens], batch.position_ids)
    np.testing.assert_array_equal(full.last_rows, [s.stop - 1 for s in full.segments])


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Stands for `torch.cuda`: `streams` are those that a recorder asks for."""
    cuda = MagicMock(streams=[MagicMock(device=torch.device("cuda", 1)) for _ in range(2)])
    cuda.Stream.side_effect = cuda.streams
    cuda.graph_pool_handle.return_value = (0, 7)
    cuda.graph.return_value.__exit__.return_value = False
    for name in ("Stream", "graph_pool_handle", "CUDAGraph", "graph", "stream", "device", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end_allocation, raising=False)
    return cuda


@pytest.mark.parametrize("knows", [False, True])
def test_the_allocator_is_told_that_a_capture_has_failed(knows: bool, cuda: MagicMock) -> None:
    """In a process where it believes in a capture no cache can be emptied: not even `close` would work."""
    record = CudaRecorder(torch.device("cuda", 1))
    cuda.graph.return_value.__exit__.side_effect = RuntimeError("operation failed due to a previous error")
    if knows:
        cuda.end_allocation.side_effect = RuntimeError("not currently recording to mempool_id")
    with pytest.raises(RuntimeError, match="previous error"):
        record(lambda: torch.ones(1))
    cuda.end_allocation.assert_called_once_with(1, (0, 7))


def test_the_allocator_is_told_nothing_of_a_capture_that_succeeds(cuda: MagicMock) -> None:
    replay = CudaRecorder(torch.device("cuda", 1))(lambda: torch.ones(1))
    assert replay() == torch.ones(1)
    cuda.CUDAGraph.return_value.replay.assert_called_once_with()
    cuda.end_allocation.assert_not_called()


def test_what_a_failed_warm_up_reads_is_not_overwritten_before_it_ends(cuda: MagicMock) -> None:
    record = CudaRecorder(torch.device("cuda", 1))
    with pytest.raises(RuntimeError, match="not permitted"):
        record(partial(refusing, record))
    cuda.current_stream.return_value.wait_stream.assert_called_once_with(cuda.streams[0])
    cuda.graph.assert_not_called()


def test_cuda_graphs_elsewhere_are_an_error(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), model_kwargs={"cuda_graphs": True}, **OPTIONS) as made,
        pytest.raises(ConfigurationError, match=r"one CUDA device.* got torch\.float32 on cpu"),
    ):
        made.load()


def test_weights_on_several_devices_have_no_graph(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = embedder(embedding_checkpoint, False).load().backend._model  # type: ignore[union-attr]
    decoder = copy.deepcopy(model.decoder)
    decoder.layers[1].to("meta")
    monkeypatch.setattr(backend, "find_varlen_kernel", lambda *_: ("constructed", masked_kernel))
    with pytest.raises(ConfigurationError, match="on cpu, meta"):
        backend.TransformersBackend(
            LoadedModel(decoder, None), token_budget=None, share_prefixes=True, cuda_graphs=True
        )


def test_only_true_and_false_switch_cuda_graphs(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), model_kwargs={"cuda_graphs": 1}, **OPTIONS) as made,
        pytest.raises(ConfigurationError, match="cuda_graphs must be True or False, got 1"),
    ):
        made.load()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile_kernels", [False, True])
def test_cuda_graphs_give_the_vectors_without(compile_kernels: bool, embedding_checkpoint: Path) -> None:
    options: dict[str, Any] = {"device": "cuda", "dtype": "bfloat16"}
    kwargs = {"cuda_graphs": True, "compile": compile_kernels}
    with (
        Embedder(str(embedding_checkpoint), model_kwargs=kwargs, **options) as ours,
        Embedder(str(embedding_checkpoint), **options) as theirs,
        warnings.catch_warnings(),
    ):
        # Ours only: what `compile` imports of PyTorch warns as well.
        warnings.filterwarnings("error", message="CUDA graphs are off|.*reference attention|attention on")
        for texts in (*([text] for text in TEXTS), TEXTS, TEXTS[::-1], [*TEXTS[:1]]):
            cosines = (ours.embed_queries(texts) * theirs.embed_queries(texts)).sum(1)
            assert cosines.min() > 0.999
        recorded = graphs_of(ours)._recorded
        assert recorded
        assert None not in recorded.values()
