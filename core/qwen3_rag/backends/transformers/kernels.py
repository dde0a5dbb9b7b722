"""FlashAttention over packed rows on CUDA, behind one signature whoever provides it.

PyTorch's own kernel is taken first, so that nobody has to compile flash-attn; the flash-attn
package second. Without either (and on CPU and MPS) attention runs per segment.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

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
    """Attention within each span.

    Takes query (rows, heads, head_dim), key and value (rows, kv_heads, head_dim); returns the
    output, shaped like the query, and the log-sum-exp of the scaled scores, float32 (rows, heads).
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


def find_varlen_kernel(device: torch.device, dtype: torch.dtype) -> tuple[str, VarlenKernel] | None:
    """Return the name and function of the best kernel for the device, or None where there is none."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    kernel = _torch_kernel() or _flash_attn_kernel()
    if kernel is not None:
        _check(kernel, device, dtype)
    return kernel


def _torch_kernel() -> tuple[str, VarlenKernel] | None:
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        return None
    parameters = inspect.signature(varlen_attn).parameters
    if not {"window_size", "enable_gqa", "scale", "return_aux"} <= parameters.keys():
        return None  # an early release of the function, without grouped-query attention

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
            enable_gqa=True,
        )
        # PyTorch documents (rows, heads); its FlashAttention kernel returns (heads, rows).
        return output, _rows_first(log_sum_exp)

    return "torch.nn.attention.varlen", run


def _flash_attn_kernel() -> tuple[str, VarlenKernel] | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None

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
        return result[0], _rows_first(result[1])

    return "flash-attn", run


def _rows_first(log_sum_exp: Tensor) -> Tensor:
    """Turn (heads, rows) into (rows, heads). `_check` proves the layout once per process start."""
    return log_sum_exp.transpose(0, 1)


def _check(kernel: tuple[str, VarlenKernel], device: torch.device, dtype: torch.dtype) -> None:
    """Compare a kernel with plain attention on one small case, layout of the log-sum-exp included.

    Raises:
        RuntimeError: it gives something else; a release changed what it returns.
    """
    name, run = kernel
    rows, heads, head_dim, scale = 3, 2, 64, 0.125
    generator = torch.Generator(device=device).manual_seed(0)
    query, key, value = (
        torch.randn(rows, heads, head_dim, device=device, generator=generator).to(dtype) for _ in range(3)
    )
    offsets = torch.tensor([0, rows], dtype=torch.int32, device=device)
    output, log_sum_exp = run(query, key, value, Spans(offsets, offsets, rows, rows), causal=False, scale=scale)
    scores = torch.einsum("qhd,khd->qhk", query.float(), key.float()) * scale
    expected = torch.einsum("qhk,khd->qhd", scores.softmax(-1), value.float())
    fits = log_sum_exp.shape == (rows, heads)
    fits = fits and torch.allclose(log_sum_exp, scores.logsumexp(-1), atol=2e-2)
    if not fits or not torch.allclose(output.float(), expected, atol=2e-2):
        raise RuntimeError(f"the attention kernel {name} does not return what this package expects of it")
