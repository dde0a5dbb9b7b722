"""FlashAttention over packed rows on CUDA, behind one signature whoever provides it.

PyTorch's own kernel is taken first, so that nobody has to compile flash-attn; the flash-attn
package second. Without either (and on CPU and MPS) attention runs per segment.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spans:
    """Independent attentions of one varlen call.

    Attributes:
        query_offsets, key_offsets: int32, shape (n + 1,); span i takes rows offsets[i] to
            offsets[i + 1] of the queries and of the keys.
        longest_query, longest_key: rows of the longest span.
    """

    query_offsets: Tensor
    key_offsets: Tensor
    longest_query: int
    longest_key: int


class VarlenKernel(Protocol):
    """Attention within each span. `find_varlen_kernel` returns kernels that keep this contract.

    Where it is causal, a span's queries are the last of its keys: each sees the keys up to its own.
    Takes query (rows, heads, head_dim), key and value (rows, kv_heads, head_dim); returns the
    output, shaped like the query, and the log-sum-exp of the scaled scores, float32 (rows, heads).
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Heads:
    """A model's attention heads.

    Attributes:
        queries: how many.
        keys: how many heads of keys and values; each serves as many of the queries.
        dimension: length of one.
    """

    queries: int
    keys: int
    dimension: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """Return those of a Qwen3 configuration."""
        queries = config.num_attention_heads
        dimension = getattr(config, "head_dim", None) or config.hidden_size // queries
        return cls(queries, config.num_key_value_heads, dimension)


def find_varlen_kernel(
    device: torch.device, dtype: torch.dtype, heads: Heads
) -> tuple[str, VarlenKernel] | None:
    """Return the name and function of the best kernel for the device, or None where there is none.

    A kernel that does not give what plain attention gives for such heads is warned of and left aside, and where
    none is left that is warned of too: attention per segment is slower, but right.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    for name, kernels in (
        ("torch.nn.attention.varlen", _torch_kernels()),
        ("flash-attn", _flash_attn_kernels()),
    ):
        for kernel in kernels:
            proven = prove(kernel, device, dtype, heads)
            if proven is not None:
                return name, proven
        if kernels:
            warnings.warn(
                f"{name} does not give what plain attention gives on {device}; not used", stacklevel=2
            )
    warnings.warn(
        f"attention on {device} goes text by text, which is slow: neither torch {torch.__version__} nor "
        "flash-attn has a kernel for packed texts that can be used here. Install torch 2.11 or newer",
        stacklevel=2,
    )
    return None


def _torch_kernels() -> list[VarlenKernel]:
    """Return PyTorch's function as a kernel for each way to ask it, the best first; none if it lacks something.

    On GPUs of compute capability 9 and 10 PyTorch 2.15 has cuDNN do what that can, which plans anew for shapes
    that it has not seen: those of packed texts are always new. (On a GH200 somebody had 60 thousand tokens a
    second in place of 280 thousand: pytorch/pytorch#187770.) cuDNN cannot be told into how many parts to split
    keys. Whoever does tell gets FlashAttention, which splits them for single queries of many keys only.
    """
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        return []
    parameters = inspect.signature(varlen_attn).parameters
    if not {"window_size", "scale", "return_aux"} <= parameters.keys():
        return []  # an early release of the function
    # Before there was such an argument, head counts were not compared: the kernel groups them itself.
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in parameters else {}

    def asked_for(options: dict[str, Any]) -> VarlenKernel:
        def run(
            query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
        ) -> tuple[Tensor, Tensor]:
            output, log_sum_exp = varlen_attn(
                query,
                key,
                value,
                spans.query_offsets,
                spans.key_offsets,
                spans.longest_query,
                spans.longest_key,
                return_aux=AuxRequest(lse=True),
                scale=scale,
                window_size=(-1, 0) if causal else (-1, -1),
                **options,
            )
            return output, log_sum_exp

        return run

    of_one_part = [{**grouped, "num_splits": 1}] if torch.__version__ >= "2.15" else []
    return [asked_for(options) for options in (*of_one_part, grouped)]


def _flash_attn_kernels() -> list[VarlenKernel]:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return []

    def run(
        query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Any, ...] = flash_attn_varlen_func(
            query,
            key,
            value,
            spans.query_offsets,
            spans.key_offsets,
            spans.longest_query,
            spans.longest_key,
            softmax_scale=scale,
            causal=causal,
            return_attn_probs=True,
        )
        return result[0], result[1]

    return [run]


_CASES: Final = (
    ([3], [3], False),
    ([5, 1, 70], [5, 1, 70], True),
    ([5, 1, 70], [9, 70, 130], True),
    ([7, 70], [3, 130], False),
    ([1, 1, 1], [5, 1, 70], False),
    ([1], [1000], False),
    ([1, 1], [300, 5], False),
)
"""Lengths of queries and keys of each span, and whether causal: what layouts ask for. One query in every span,
which only the last layer has, takes a path of its own in FlashAttention, and with many keys another, in which
they are divided and joined again."""


def prove(kernel: VarlenKernel, device: torch.device, dtype: torch.dtype, heads: Heads) -> VarlenKernel | None:
    """Compare a kernel with plain attention on small cases, and settle its log-sum-exp's layout.

    Returns:
        The kernel, returning (rows, heads) whichever way round it does so itself (PyTorch documents
        (rows, heads), while its FlashAttention kernel declares (heads, rows)); None if it raises or
        gives other numbers.
    """
    try:
        heads_first = _puts_heads_first(kernel, device, dtype, heads)
        proven = _transposing(kernel) if heads_first else kernel
        right = all(_is_right(proven, device, dtype, heads, *case) for case in _CASES)
    except Exception:  # whatever a kernel built for another GPU raises
        return None
    return proven if right else None


def _random(rows: int, heads: int, dimension: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device=device).manual_seed(rows + heads)
    return torch.randn(rows, heads, dimension, device=device, generator=generator).to(dtype)


def _spans(queries: list[int], keys: list[int], device: torch.device) -> Spans:
    query_offsets, key_offsets = (
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device) for lengths in (queries, keys)
    )
    return Spans(query_offsets, key_offsets, max(queries), max(keys))


def _puts_heads_first(kernel: VarlenKernel, device: torch.device, dtype: torch.dtype, heads: Heads) -> bool:
    rows = heads.queries + 1  # another number than of heads: the shape alone tells
    query = _random(rows, heads.queries, heads.dimension, device, dtype)
    key = _random(rows, heads.keys, heads.dimension, device, dtype)
    spans = _spans([rows], [rows], device)
    return kernel(query, key, key, spans, causal=False, scale=1.0)[1].shape == (heads.queries, rows)


def _is_right(
    kernel: VarlenKernel,
    device: torch.device,
    dtype: torch.dtype,
    heads: Heads,
    queries: list[int],
    keys: list[int],
    causal: bool,
) -> bool:
    query = _random(sum(queries), heads.queries, heads.dimension, device, dtype)
    key, value = _random(sum(keys), 2 * heads.keys, heads.dimension, device, dtype).chunk(2, dim=1)
    scale = heads.dimension**-0.5
    spans = _spans(queries, keys, device)
    output, log_sum_exp = kernel(query, key.contiguous(), value.contiguous(), spans, causal=causal, scale=scale)
    groups = heads.queries // heads.keys
    key, value = (rows.float().repeat_interleave(groups, 1) for rows in (key, value))
    for part, sums, q, k, v in zip(
        torch.split(output, queries),
        torch.split(log_sum_exp, queries),
        torch.split(query.float(), queries),
        torch.split(key, keys),
        torch.split(value, keys),
        strict=True,
    ):
        scores = torch.einsum("qhd,khd->qhk", q, k) * scale
        if causal:
            later = torch.ones(len(q), len(k), dtype=torch.bool, device=device).triu(1 + len(k) - len(q))
            scores.masked_fill_(later[:, None], float("-inf"))
        expected = torch.einsum("qhk,khd->qhd", scores.softmax(-1), v)
        if sums.shape != scores.shape[:2] or not (
            torch.allclose(sums, scores.logsumexp(-1), atol=2e-2)
            and torch.allclose(part.float(), expected, atol=2e-2)
        ):
            return False
    return True


def _transposing(kernel: VarlenKernel) -> VarlenKernel:
    def run(
        query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        output, log_sum_exp = kernel(query, key, value, spans, causal=causal, scale=scale)
        return output, log_sum_exp.transpose(0, 1)

    return run
