"""Each token sees its own sequence up to itself and nothing else, however segments are cut into calls."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_rag.backends.transformers import attention, plain_attention
from qwen3_rag.backends.transformers.attention import attend
from qwen3_rag.backends.transformers.layout import to_device
from qwen3_rag.backends.transformers.masks import CausalMasks
from qwen3_rag.plan import PackedBatch, Segment
from torch import Tensor

CPU = torch.device("cpu")
SCALE = 0.3


@st.composite
def rows_of_segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    """A row of segments, some of which continue others."""
    segments: list[Segment] = []
    open_segments: list[int] = []
    for index in range(draw(st.integers(1, 6))):
        open_segments = open_segments[: draw(st.integers(0, len(open_segments)))]
        start = segments[-1].stop if segments else 0
        parent = open_segments[-1] if open_segments else None
        segments.append(Segment(start, start + draw(st.integers(1, 40)), parent))
        open_segments.append(index)
    return tuple(segments)


def batch_of(segments: tuple[Segment, ...]) -> PackedBatch:
    rows = np.arange(segments[-1].stop, dtype=np.int32)
    ends = np.array([segment.stop - 1 for segment in segments])
    return PackedBatch(rows, rows, segments, ends, np.arange(len(segments)), np.diff(ends, prepend=-1))


def seen_by(row: int, segments: tuple[Segment, ...]) -> list[int]:
    index: int | None = next(i for i, segment in enumerate(segments) if segment.start <= row < segment.stop)
    rows: list[int] = []
    while index is not None:
        segment = segments[index]
        rows = [*range(segment.start, min(segment.stop, row + 1)), *rows]
        index = segment.parent
    return rows


def one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...]) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    result = torch.empty_like(query)
    for row in range(len(query)):
        seen = seen_by(row, segments)
        weights = (torch.einsum("hd,khd->hk", query[row], key[seen]) * SCALE).softmax(-1)
        result[row] = torch.einsum("hk,khd->hd", weights, value[seen])
    return result


@settings(max_examples=150, deadline=None)
@given(
    rows_of_segments(),
    st.data(),
    st.sampled_from([1, 3, 16, 64]),
    st.sampled_from([2, 30, 1024]),
    st.sampled_from(["tiles", "no tiles", "plain"]),
    st.sampled_from([1, 4, 16]),
    st.booleans(),
)
def test_calls_of_any_size_see_what_each_token_sees(
    segments: tuple[Segment, ...],
    data: st.DataObject,
    small: int,
    large: int,
    way: str,
    step: int,
    groups_keys: bool,
) -> None:
    past = 0
    if all(segment.parent is not None for segment in segments[1:]):
        past = data.draw(st.integers(0, segments[0].stop - 1))
    batch = to_device(batch_of(segments), CPU, None, past)
    generator = torch.Generator().manual_seed(len(batch.input_ids))
    query, key, value = (
        torch.randn(segments[-1].stop, heads, 8, generator=generator, dtype=torch.float64)
        for heads in (4, 2, 2)
    )
    expected = one_by_one(query, key, value, segments)
    ends = [segment.stop - 1 for segment in segments]
    with (
        patch.object(attention, "_CPU_BLOCK_ROWS", small),
        patch.object(attention, "_BLOCK_ROWS", large),
        patch.object(torch.cpu, "_is_amx_tile_supported", lambda: way == "tiles"),
        patch.object(attention, "PLAIN_DEVICES", {"cpu"} if way == "plain" else {}),
        patch.object(plain_attention, "_MOST_SCORES", 4 * 40 * large),
        patch.object(attention, "_CPU_GROUPS_KEYS", groups_keys),
        patch.object(attention, "_padded_key_count", lambda keys, _: -(-keys // step) * step),
    ):
        of_ends = attend(query[ends].clone(), key, value, batch.ends_layout, SCALE)
        of_all = attend(query[past:].clone(), key, value, batch.layout, SCALE)
    torch.testing.assert_close(of_all, expected[past:], rtol=0, atol=1e-12)
    torch.testing.assert_close(of_ends, expected[ends], rtol=0, atol=1e-12)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 3000), st.sampled_from([0, 1, 15])), min_size=1, max_size=5
    )
)
def test_masks_are_causal_after_any_number_of_keys(asked: list[tuple[int, int, int]]) -> None:
    masks = CausalMasks(CPU)
    for rows, before, behind in asked:
        expected = torch.arange(before + rows + behind) <= torch.arange(before, before + rows)[:, None]
        assert torch.equal(masks.of(rows, before, behind), expected)


@pytest.mark.parametrize(("has_tiles", "calls"), [(False, 5), (True, 1)])
def test_a_text_is_cut_into_calls_where_they_spare_keys(has_tiles: bool, calls: int) -> None:
    segments = (Segment(0, 300, None),)
    batch = to_device(batch_of(segments), CPU, None)
    query, key, value = torch.randn(300, 2, 4), torch.randn(300, 1, 4), torch.randn(300, 1, 4)
    attention_of_pytorch = attention.F.scaled_dot_product_attention
    with (
        patch.object(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles),
        patch.object(attention.F, "scaled_dot_product_attention", wraps=attention_of_pytorch) as called,
    ):
        attend(query, key, value, batch.layout, SCALE)
    assert called.call_count == calls


@pytest.mark.parametrize(("groups_keys", "heads"), [(True, 2), (False, 4)])
def test_a_kernel_that_groups_no_keys_is_given_a_head_of_keys_for_each_of_queries(
    groups_keys: bool, heads: int
) -> None:
    batch = to_device(batch_of((Segment(0, 30, None), Segment(30, 50, 0), Segment(50, 60, None))), CPU, None)
    query, key = torch.randn(60, 4, 8), torch.randn(60, 2, 8)
    attention_of_pytorch = attention.F.scaled_dot_product_attention
    with (
        patch.object(attention, "_CPU_GROUPS_KEYS", groups_keys),
        patch.object(attention.F, "scaled_dot_product_attention", wraps=attention_of_pytorch) as called,
    ):
        attend(query, key, key, batch.layout, SCALE)
    assert [call.args[1].shape[1] for call in called.call_args_list] == [heads] * 3


def test_plain_attention_makes_no_more_scores_at_once_than_it_may() -> None:
    seen: list[int] = []
    bmm = torch.bmm

    def counting(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a.shape[0] * a.shape[1] * b.shape[2])
        return bmm(a, b)

    batch = to_device(batch_of((Segment(0, 700, None),)), CPU, None)
    query, key = torch.randn(700, 4, 8), torch.randn(700, 2, 8)
    expected = attend(query.clone(), key, key, batch.layout, SCALE)
    with (
        patch.object(attention, "PLAIN_DEVICES", {"cpu"}),
        patch.object(plain_attention, "_MOST_SCORES", 100_000),
        patch.object(torch, "bmm", counting),
    ):
        found = attend(query.clone(), key, key, batch.layout, SCALE)
    assert max(seen) <= 100_000
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_plain_attention_computes_half_precision_in_float32(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(9, heads, 8).to(dtype) for heads in (4, 2, 2))
    exact = plain_attention.attend_plainly(query.double(), key.double(), value.double(), None, SCALE)
    found = plain_attention.attend_plainly(query, key, value, None, SCALE)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, [37, 64, 80, 112]), (torch.float32, [37, 60, 70, 100])], ids=str
)
def test_in_bfloat16_calls_have_as_many_keys_as_tiles_hold(dtype: torch.dtype, expected: list[int]) -> None:
    """But for the last text of a row, behind which nothing lies."""
    segments = (Segment(0, 60, None), Segment(60, 100, 0), Segment(100, 170, None), Segment(170, 207, None))
    batch = to_device(batch_of(segments), CPU, None)
    query, key, value = (torch.randn(207, heads, 16).to(dtype) for heads in (2, 1, 1))
    attention_of_pytorch = attention.F.scaled_dot_product_attention
    with (
        patch.object(torch.cpu, "_is_amx_tile_supported", lambda: True),
        patch.object(attention.F, "scaled_dot_product_attention", wraps=attention_of_pytorch) as called,
    ):
        attend(query, key, value, batch.layout, SCALE)
    assert sorted(call.args[1].shape[2] for call in called.call_args_list) == expected


def test_keys_behind_a_text_change_no_bit_of_it() -> None:
    segments = (Segment(0, 37, None), Segment(37, 80, None))
    batch = to_device(batch_of(segments), CPU, None)
    query, key, value = (torch.randn(80, heads, 16).bfloat16() for heads in (2, 1, 1))
    first = attend(query.clone(), key, value, batch.layout, SCALE)[:37].clone()
    key[37:], value[37:] = 1e30, -1e30
    assert torch.equal(attend(query.clone(), key, value, batch.layout, SCALE)[:37], first)
