"""The CUDA path's logic, run on CPU with a plain implementation of the kernels' contract.

What only a GPU can show (that PyTorch's kernel keeps that contract) is checked when a backend
loads there: `find_varlen_kernel` proves a kernel against plain attention before it is used.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.transformers import kernel_layout, kernels
from qwen3_rag.backends.transformers.kernel_layout import KernelLayout
from qwen3_rag.backends.transformers.kernels import Heads, Spans, validate_kernel
from qwen3_rag.backends.transformers.layout import to_device
from qwen3_rag.backends.transformers.prefix_cache import PrefixCache
from qwen3_rag.plan import plan_batches
from torch import Tensor

HEADS = Heads(queries=4, keys=2, dimension=128)


def plain_kernel(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention within spans as the contract says, one span at a time."""
    output, log_sum_exp = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
    q_ends, k_ends = spans.query_offsets.tolist(), spans.key_offsets.tolist()
    assert q_ends[-1] == len(query)
    assert k_ends[-1] == len(key)
    assert max(np.diff(q_ends)) == spans.longest_query
    assert max(np.diff(k_ends)) == spans.longest_key
    groups = query.shape[1] // key.shape[1]
    for low, high, k_low, k_high in zip(q_ends, q_ends[1:], k_ends, k_ends[1:], strict=False):
        keys = key[k_low:k_high].repeat_interleave(groups, 1).float()
        values = value[k_low:k_high].repeat_interleave(groups, 1).float()
        scores = torch.einsum("qhd,khd->qhk", query[low:high].float(), keys) * scale
        if causal:
            rows, seen = high - low, k_high - k_low
            hidden = torch.ones(rows, seen, dtype=torch.bool).triu(1 + seen - rows)
            scores.masked_fill_(hidden[:, None], float("-inf"))
        log_sum_exp[low:high] = scores.logsumexp(-1)
        output[low:high] = torch.einsum("qhk,khd->qhd", scores.softmax(-1), values).to(query.dtype)
    return output, log_sum_exp


def with_kernel(component: Any) -> Any:
    """Give a loaded component's backend the plain kernel, as CUDA would give it a fast one."""
    backend = component.load().backend
    backend._kernel, backend._prefix_cache, backend._rows_for = plain_kernel, PrefixCache(0), None
    return component


@pytest.mark.parametrize("most_keys_per_token", [0, 100])
@pytest.mark.parametrize("token_budget", [150, 100_000])
def test_one_call_over_written_keys_and_two_joined_calls_equal_attention_by_segment(
    reranking_checkpoint: Path, token_budget: int, most_keys_per_token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_layout, "_MOST_KEYS_PER_TOKEN", most_keys_per_token)
    pairs = [
        (query, f"Passage {i} tells of {topic}. " * (1 + i % 5))
        for query in ("what shines?", "what shines in the night when the moon is new?")
        for topic in ("the sun", "the sea")
        for i in range(12)
    ]
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    expected = Reranker(str(reranking_checkpoint), **options).score_pairs(pairs)
    by_kernel = with_kernel(Reranker(str(reranking_checkpoint), token_budget=token_budget, **options))
    np.testing.assert_allclose(by_kernel.score_pairs(pairs), expected, atol=1e-5)


def sharing(prefix: int, *lengths: int) -> KernelLayout:
    """The layout of sequences that have a prefix in common, the first token after it not."""
    sequences = [np.array([*range(prefix), 9000 + i, *[7] * (n - 1)], np.int32) for i, n in enumerate(lengths)]
    (batch,) = plan_batches(sequences, token_budget=100_000)
    layout = to_device(batch, torch.device("cpu"), plain_kernel).layout
    assert isinstance(layout, KernelLayout)
    return layout


def test_keys_are_written_behind_a_prefix_unless_they_would_be_many() -> None:
    written = sharing(10, 20, 30)
    assert written.key_rows is not None
    prefix, first, second = range(10), range(10, 30), range(30, 60)
    assert written.key_rows.tolist() == [*prefix, *prefix, *first, *prefix, *second]
    assert written.spans.key_offsets.tolist() == [0, 10, 40, 80]
    assert written.spans.query_offsets.tolist() == [0, 10, 30, 60]
    assert written.prefix_call is None
    joined = sharing(1000, *[5] * 20)
    assert joined.key_rows is None
    assert joined.prefix_call is not None
    assert joined.prefix_call.key_rows.tolist() == list(range(1000))
    assert joined.prefix_call.query_rows.tolist() == list(range(1000, 1100))
    plain = sharing(0, 20, 30)
    assert (plain.key_rows, plain.prefix_call) == (None, None)


def test_rows_without_any_prefix_take_one_call(embedding_checkpoint: Path) -> None:
    texts = ["gravity", "the capital of China", "", "a b c d"]
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    expected = Embedder(str(embedding_checkpoint), **options).embed_documents(texts)
    joined = with_kernel(Embedder(str(embedding_checkpoint), token_budget=999, **options))
    np.testing.assert_allclose(joined.embed_documents(texts), expected, atol=1e-5)


def test_on_cuda_a_round_is_several_batches(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {i} " * (1 + i % 7) for i in range(40)]
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    expected = Embedder(str(embedding_checkpoint), **options).embed_documents(texts)
    embedder = with_kernel(Embedder(str(embedding_checkpoint), token_budget=998, **options))
    backend = embedder.load().backend
    backend.device = torch.device("cuda")  # only asked for its type
    monkeypatch.setattr("qwen3_rag.backends.transformers.backend._CUDA_BATCH_TOKENS", 100)
    with patch.object(backend, "_forward", wraps=backend._forward) as forward:
        np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
    assert embedder.metrics.rounds == 1
    assert 3 <= forward.call_count <= 8
    assert all(len(call.args[0].token_ids) <= 112 for call in forward.call_args_list)


def test_a_long_continuation_is_attended_in_blocks(reranking_checkpoint: Path) -> None:
    """Blocks of a long document see the prefix, all blocks before, and themselves causally."""
    documents = ["sun moon sea " * 900, "stars " * 1500, "short"]
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    shared = Reranker(str(reranking_checkpoint), **options).score("why?", documents)
    apart = Reranker(str(reranking_checkpoint), share_prefixes=False, **options).score("why?", documents)
    np.testing.assert_allclose(shared, apart, atol=1e-5)


def test_a_kernel_is_proved_against_plain_attention_whichever_way_its_output_lies() -> None:
    def heads_first(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        output, log_sum_exp = plain_kernel(*args, **options)
        return output, log_sum_exp.T

    offsets = torch.tensor([0, 4], dtype=torch.int32)
    query = torch.randn(4, 4, 8)  # as many heads as rows: the shape alone does not tell
    arguments = (query, query, query, Spans(offsets, offsets, 4, 4))
    expected = plain_kernel(*arguments, causal=True, scale=1.0)[1]
    for kernel in (plain_kernel, heads_first):
        proven = validate_kernel(kernel, torch.device("cpu"), torch.float32, HEADS)
        assert proven is not None
        torch.testing.assert_close(proven(*arguments, causal=True, scale=1.0)[1], expected)


def test_a_wrong_or_broken_kernel_is_left_aside() -> None:
    def unscaled(*args: Any, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        return plain_kernel(*args, causal=causal, scale=scale * 2)

    def broken(*_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise RuntimeError("no kernel image for this device")

    def of_few_keys(query: Tensor, key: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        output, log_sum_exp = plain_kernel(query, key, *arguments, **options)
        return (output * 2 if len(key) > 128 and len(query) == 1 else output), log_sum_exp

    def of_eight(query: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        if query.shape[-1] % 8:
            raise RuntimeError("head_dim must be a multiple of 8")
        return plain_kernel(query, *arguments, **options)

    for kernel in (unscaled, broken, of_few_keys):
        assert validate_kernel(kernel, torch.device("cpu"), torch.float32, HEADS) is None
    assert validate_kernel(of_eight, torch.device("cpu"), torch.float32, HEADS) is not None
    for heads in (Heads(4, 2, 20), Heads(1, 1, 20)):
        assert validate_kernel(of_eight, torch.device("cpu"), torch.float32, heads) is None
        assert validate_kernel(plain_kernel, torch.device("cpu"), torch.float32, heads) is not None


def test_pytorchs_kernel_is_found_on_this_release() -> None:
    """Only its signatures: the kernel itself needs a GPU."""
    assert kernels._operation()
    assert kernels._public_function()


@pytest.mark.parametrize("refuses", [False, True])
def test_pytorchs_operation_is_called_itself_and_its_function_where_that_fails(
    refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def operation(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_offsets: Tensor,
        key_offsets: Tensor,
        longest_query: int,
        longest_key: int,
        dropout: float,
        is_causal: bool,
        return_debug_mask: bool,
        *,
        scale: float,
        window_size_left: int,
        window_size_right: int,
    ) -> tuple[Tensor, ...]:
        """As PyTorch 2.6 to 2.13 declare it."""
        if refuses:
            raise TypeError("got an unexpected keyword argument")
        assert (dropout, return_debug_mask) == (0.0, False)
        assert (window_size_left, window_size_right) == (-1, 0 if is_causal else -1)
        spans = Spans(query_offsets, key_offsets, longest_query, longest_key)
        output, sums = plain_kernel(query, key, value, spans, causal=is_causal, scale=scale)
        return output, sums.T, *[torch.empty(0)] * 3

    def function(
        *tensors_and_longest: Any,
        return_aux: Any = None,
        scale: float = 1.0,
        window_size: tuple[int, int] = (-1, -1),
    ) -> tuple[Tensor, Tensor]:
        assert return_aux.lse
        called.append("function")
        query, key, value, *spans = tensors_and_longest
        return plain_kernel(query, key, value, Spans(*spans), causal=window_size == (-1, 0), scale=scale)

    called: list[str] = []
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", SimpleNamespace(default=operation))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(kernels, "validate_kernel", lambda kernel, _, *how: validate_kernel(kernel, cpu, *how))
    found = kernels.find_varlen_kernel(torch.device("cuda:0"), torch.bfloat16, HEADS)
    assert found is not None
    assert bool(called) is refuses


def test_a_release_that_is_not_asked_for_grouped_heads_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_2_11(
        *tensors: Any,
        return_aux: Any = None,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
    ) -> tuple[Any, ...]:
        return tensors, (return_aux.lse, scale, window_size)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", of_2_11)
    (kernel,) = kernels._public_function()
    offsets = torch.tensor([0, 4], dtype=torch.int32)
    given: Any = kernel(
        torch.ones(4), *[torch.ones(4)] * 2, Spans(offsets, offsets, 4, 4), causal=True, scale=2.0
    )
    assert given[1] == (True, 2.0, (-1, 0))


@pytest.mark.parametrize("refuses", [False, True])
def test_a_release_that_prefers_cudnn_is_asked_for_what_only_flash_attention_does(
    monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    """But where that fails, it may do as it likes."""

    def of_2_15(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *offsets_and_longest: Any,
        return_aux: Any = None,
        scale: float = 1.0,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
        num_splits: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert enable_gqa
        assert return_aux.lse
        asked.append(num_splits)
        if refuses and num_splits is not None:
            raise RuntimeError("num_splits is not supported on ROCm")
        spans = Spans(*offsets_and_longest)
        return plain_kernel(query, key, value, spans, causal=window_size == (-1, 0), scale=scale)

    asked: list[int | None] = []
    cpu = torch.device("cpu")
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", of_2_15)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.15.0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(kernels, "validate_kernel", lambda kernel, _, *how: validate_kernel(kernel, cpu, *how))
    found = kernels.find_varlen_kernel(torch.device("cuda:0"), torch.bfloat16, HEADS)
    assert found is not None
    assert found[0] == "torch.nn.attention.varlen"
    assert asked[-1] == (None if refuses else 1)


def test_a_gpu_without_a_kernel_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for name in ("_torch_kernels", "_flash_attn_kernels"):
        monkeypatch.setattr(kernels, name, list)
    with pytest.warns(UserWarning, match=r"attention on cuda:0 runs one text at a time.*torch 2\.11 or newer"):
        assert kernels.find_varlen_kernel(torch.device("cuda:0"), torch.bfloat16, HEADS) is None


def test_no_kernel_is_used_where_none_can_run() -> None:
    assert kernels.find_varlen_kernel(torch.device("cpu"), torch.bfloat16, HEADS) is None
    assert kernels.find_varlen_kernel(torch.device("cuda"), torch.float32, HEADS) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [True, False])
def test_cuda_equals_the_cpu(reranking_checkpoint: Path, share: bool) -> None:
    documents = [f"Passage {i} " * (1 + i % 9) for i in range(40)]
    expected = Reranker(str(reranking_checkpoint), dtype="float32", device="cpu").score("why?", documents)
    for dtype, tolerance in (("float32", 1e-4), ("bfloat16", 5e-2)):
        reranker = Reranker(str(reranking_checkpoint), dtype=dtype, device="cuda", share_prefixes=share)
        np.testing.assert_allclose(reranker.score("why?", documents), expected, atol=tolerance)
