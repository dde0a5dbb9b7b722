"""FlashAttention over packed rows on CUDA, behind one signature for all providers.

PyTorch's own kernel is preferred, so that nobody has to compile flash-attn; the flash-attn package comes
second. Without either (and on CPU and MPS) attention runs per segment.
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
    """The independent attentions of one varlen call.

    Attributes:
        query_offsets, key_offsets: int32, shape (n + 1,); span i has rows offsets[i] to offsets[i + 1] of the
            queries and of the keys.
        longest_query, longest_key: most rows of a span, or an upper bound.
    """

    query_offsets: Tensor
    key_offsets: Tensor
    longest_query: int
    longest_key: int


class VarlenKernel(Protocol):
    """Attention within each span, as `find_varlen_kernel` returns it.

    If causal, a span's queries are at the positions of its last keys, and each sees the keys up to its own
    position. Takes query (rows, heads, head_dim), key and value (rows, kv_heads, head_dim); returns the output,
    shaped like the query, and the log-sum-exp of the scaled scores, float32 (rows, heads).
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Heads:
    """A model's attention heads.

    Attributes:
        queries: how many query heads.
        keys: how many key-value heads; each serves the same number of query heads.
        dimension: elements of one head.
    """

    queries: int
    keys: int
    dimension: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """Return the heads of a Qwen3 configuration."""
        return cls(config.num_attention_heads, config.num_key_value_heads, config.head_dim)


def find_varlen_kernel(
    device: torch.device, dtype: torch.dtype, heads: Heads
) -> tuple[str, VarlenKernel] | None:
    """Return the name and function of the best kernel for the device, or None if there is none.

    Warns of a kernel that does not match reference attention for such heads, which is not used, and warns if
    none is left: attention per segment is slower, but right.
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
            validated = validate_kernel(kernel, device, dtype, heads)
            if validated is not None:
                return name, validated
        if kernels:
            warnings.warn(f"{name} does not match reference attention on {device}; not used", stacklevel=2)
    warnings.warn(
        f"attention on {device} runs one text at a time, which is slow: neither torch {torch.__version__} nor "
        "flash-attn has a usable kernel for packed texts. Install torch 2.11 or newer",
        stacklevel=2,
    )
    return None


def _torch_kernels() -> list[VarlenKernel]:
    """Return PyTorch's ways to call its kernel, the best first."""
    return [*_operation(), *_public_function()]


def _operation() -> list[VarlenKernel]:
    """Return the operation that PyTorch's function calls; none if there is none.

    The function is a custom operation in Python, which took the host 18 us a call on an AMD EPYC (PyTorch 2.13,
    a stand-in of the same signature), as long as several other operations of a layer, and fills a tensor on
    the device that nobody reads. Releases before 2.11 have the operation only. It is private, so the function
    is tried after it; it is always FlashAttention.
    """
    packet = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if packet is None:
        return []
    forward = packet.default

    def run(
        query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Any, ...] = forward(
            query,
            key,
            value,
            spans.query_offsets,
            spans.key_offsets,
            spans.longest_query,
            spans.longest_key,
            0.0,  # no dropout
            causal,
            False,  # no mask to look at
            scale=scale,
            window_size_left=-1,
            window_size_right=0 if causal else -1,
        )
        return result[0], result[1]

    return [run]


def _public_function() -> list[VarlenKernel]:
    """Return PyTorch's function with each set of options to try, the best first; none if it lacks an argument.

    PyTorch 2.15 dispatches compute capability 9 and 10 to cuDNN, which plans anew for every shape it has not
    seen, and packed batches always have new shapes (pytorch/pytorch#187770: 60k instead of 280k tokens/s on a
    GH200). cuDNN does not support `num_splits`, so passing it selects FlashAttention, which without it splits
    keys only for single queries with many keys.
    """
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        return []
    parameters = inspect.signature(varlen_attn).parameters
    if not {"window_size", "scale", "return_aux"} <= parameters.keys():
        return []  # an early version of the function
    # Before `enable_gqa` existed, head counts were not checked: the kernel groups them itself.
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in parameters else {}

    def with_options(options: dict[str, Any]) -> VarlenKernel:
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

    unsplit = [{**grouped, "num_splits": 1}] if torch.__version__ >= "2.15" else []
    return [with_options(options) for options in (*unsplit, grouped)]


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
"""Query and key lengths of each span, and whether causal: all kinds of calls that layouts make. One query in
every span, as in the last layer, takes a separate path in FlashAttention, and with many keys another, which
splits them."""

_TOLERANCE: Final = 2e-2
"""Absolute difference to reference attention that is accepted; values are about 1, so a few units in the last
place of bfloat16. Chosen, not tuned."""


def validate_kernel(
    kernel: VarlenKernel, device: torch.device, dtype: torch.dtype, heads: Heads
) -> VarlenKernel | None:
    """Compare a kernel with reference attention on small cases, and find out its log-sum-exp's layout.

    Returns:
        The kernel with its log-sum-exp as (rows, heads), transposed if needed (PyTorch documents (rows, heads),
        while its FlashAttention kernel declares (heads, rows)); None if it raises or does not match.
    """
    try:
        heads_first = _puts_heads_first(kernel, device, dtype, heads)
        validated = _transposing(kernel) if heads_first else kernel
        matches = all(_matches_reference(validated, device, dtype, heads, *case) for case in _CASES)
    except Exception:  # a kernel built for another GPU may raise anything
        return None
    return validated if matches else None


def _random(rows: int, heads: int, dimension: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device=device).manual_seed(rows + heads)
    return torch.randn(rows, heads, dimension, device=device, generator=generator).to(dtype)


def _spans(queries: list[int], keys: list[int], device: torch.device) -> Spans:
    query_offsets, key_offsets = (
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device) for lengths in (queries, keys)
    )
    return Spans(query_offsets, key_offsets, max(queries), max(keys))


def _puts_heads_first(kernel: VarlenKernel, device: torch.device, dtype: torch.dtype, heads: Heads) -> bool:
    rows = heads.queries + 1  # differs from the number of heads, so that the shape tells
    query = _random(rows, heads.queries, heads.dimension, device, dtype)
    key = _random(rows, heads.keys, heads.dimension, device, dtype)
    spans = _spans([rows], [rows], device)
    return kernel(query, key, key, spans, causal=False, scale=1.0)[1].shape == (heads.queries, rows)


def _matches_reference(
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
            torch.allclose(sums, scores.logsumexp(-1), atol=_TOLERANCE)
            and torch.allclose(part.float(), expected, atol=_TOLERANCE)
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
