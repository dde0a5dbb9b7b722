"""Cutting comes before normalising; precisions mean what they mean to Sentence Transformers."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3_rag
from qwen3_rag import PRESETS, PUBLISHED_MODELS, BackendError, ConfigurationError, Embedder, quantize
from qwen3_rag.ranking import rank, yes_probability
from qwen3_rag.vectors import as_rows, cut_and_normalise, parse_dimensions, resolve_dimensions

HIDDEN = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32) * 3
VECTORS = cut_and_normalise(HIDDEN, 64)


def test_vectors_are_cut_first_and_normalised_second() -> None:
    expected = HIDDEN[:, :32] / np.linalg.norm(HIDDEN[:, :32], axis=1, keepdims=True)
    np.testing.assert_allclose(cut_and_normalise(HIDDEN, 32), expected, atol=1e-6)


def test_short_rows_are_scaled_too_and_a_row_of_zeros_stays_as_it_is() -> None:
    rows = np.array([[0.003, -0.004], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(cut_and_normalise(rows, 2), [[0.6, -0.8], [0, 0]], atol=1e-6)


def test_states_of_another_length_are_not_taken_for_several_texts() -> None:
    with pytest.raises(BackendError, match=r"shape \(200, 64\); the model's vectors have 32"):
        as_rows(HIDDEN, 32)
    assert as_rows(np.zeros(0, dtype=np.float32), 32).shape == (0, 32)


def test_the_given_states_are_not_changed() -> None:
    before = HIDDEN.copy()
    cut_and_normalise(HIDDEN, 64)
    np.testing.assert_array_equal(HIDDEN, before)


@pytest.mark.parametrize("dimensions", [32, 64])
def test_the_fewest_dimensions_and_all_of_them_may_be_asked_for(dimensions: int) -> None:
    assert parse_dimensions(dimensions) == resolve_dimensions(dimensions, 64) == dimensions


def test_floats_are_converted_and_what_is_no_precision_is_refused() -> None:
    np.testing.assert_array_equal(quantize(VECTORS, "float32"), VECTORS, strict=True)
    np.testing.assert_array_equal(quantize(VECTORS, "float16"), VECTORS.astype(np.float16), strict=True)
    with pytest.raises(ConfigurationError, match=r"precision must be one of .*'int8'.* got 'int4'"):
        quantize(VECTORS, "int4")  # type: ignore[arg-type]


def test_binary_keeps_signs_eight_to_a_byte() -> None:
    packed = quantize(VECTORS, "ubinary")
    assert packed.dtype == np.uint8
    assert packed.shape == (200, 8)
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1).astype(bool), VECTORS > 0)
    shifted = quantize(VECTORS, "binary")
    assert shifted.dtype == np.int8
    np.testing.assert_array_equal(shifted.astype(int) + 128, packed)
    assert quantize(np.array([[0.0, 0.1, -0.1]], np.float32), "ubinary").tolist() == [[0b01000000]]


def test_int8_spreads_each_columns_range_over_256_steps() -> None:
    low, high = VECTORS.min(axis=0), VECTORS.max(axis=0)
    levels = quantize(VECTORS, "uint8")
    assert levels.dtype == np.uint8
    assert (levels.min(axis=0) == 0).all()
    assert (levels.max(axis=0) >= 254).all()
    step = (high - low) / 255
    assert np.abs(low + levels * step - VECTORS).max() <= step.max() * 1.001
    signed = quantize(VECTORS, "int8")
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed.astype(int) + 128, levels)


def test_all_levels_of_int8_are_equally_wide() -> None:
    ranges = np.array([[0.0], [255.0]], dtype=np.float32)
    grid = np.arange(0, 255, 0.125, dtype=np.float32)[:, None]
    for precision in ("int8", "uint8"):
        _, counts = np.unique(quantize(grid, precision, ranges), return_counts=True)
        assert counts.tolist() == [8] * 255


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        (np.zeros((2, 3)), ConfigurationError, r"shape \(2, 64\).*got \(2, 3\)"),
        (np.zeros((3, 64)), ConfigurationError, r"shape \(2, columns\).*got \(3, 64\)"),
        (np.stack([np.ones(64), np.zeros(64)]), ConfigurationError, "column 0 has 1.0 and 0.0"),
        (np.full((2, 64), np.nan), ConfigurationError, "column 0 has nan"),
        (np.outer([-1, 1], [1, 1, np.inf]), ConfigurationError, "column 2 has -inf and inf"),
        (np.zeros(2), ConfigurationError, r"shape \(2, columns\).*got \(2,\)"),
        ("abc", TypeError, "ranges must be an array"),
        ([[1, 2], [3]], TypeError, "ranges must be an array"),
    ],
)
def test_ranges_that_cannot_be_right_are_refused_before_anything_is_computed(
    ranges: Any, error: type[Exception], message: str, embedding_checkpoint: Path
) -> None:
    with pytest.raises(error, match=message):
        quantize(VECTORS, "int8", ranges)
    with Embedder(str(embedding_checkpoint), device="cpu", dtype="float32", max_queued=7) as embedder:
        with pytest.raises(error, match=message):
            embedder.embed_documents(["text"] * 200, precision="int8", ranges=ranges)
        assert embedder.metrics.rounds == 0


def test_what_the_owner_does_to_ranges_while_a_call_waits_is_not_seen(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), device="cpu", dtype="float32") as embedder:
        ranges = np.stack([np.full(64, -1.0, np.float32), np.full(64, 1.0, np.float32)])
        expected = embedder.embed_documents(["text"], precision="int8", ranges=ranges)

        async def changed() -> Any:
            call = asyncio.ensure_future(embedder.aembed_documents(["text"], precision="int8", ranges=ranges))
            await asyncio.sleep(0)
            ranges[:] = 0
            return await call

        np.testing.assert_array_equal(asyncio.run(changed()), expected)


def test_given_ranges_make_calls_comparable_and_outliers_saturate() -> None:
    ranges = np.stack([VECTORS.min(axis=0), VECTORS.max(axis=0)]) / 2
    together = quantize(VECTORS, "int8", ranges)
    np.testing.assert_array_equal(
        np.concatenate([quantize(v[None], "int8", ranges) for v in VECTORS]), together
    )
    assert (together == 127).any()
    assert (together == -128).any()
    far = np.array([[-9.0], [9.0]], dtype=np.float32)
    assert quantize(far, "uint8", np.array([[0.0], [1.0]], np.float32)).tolist() == [[0], [255]]


def test_a_column_of_one_value_has_one_level() -> None:
    with np.errstate(all="raise"):
        levels = quantize(np.full((200, 3), 0.5, np.float32), "uint8")
    assert not levels.any()


def test_few_vectors_without_ranges_warn() -> None:
    for count in (1, 3, 99):
        with pytest.warns(UserWarning, match=f"measured on only {count} vectors"):
            quantize(VECTORS[:count], "uint8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(VECTORS[:100], "int8")
        quantize(VECTORS[:3], "int8", np.stack([VECTORS.min(axis=0), VECTORS.max(axis=0)]))
        quantize(VECTORS[:3], "binary")
        assert quantize(VECTORS[:0], "int8").shape == (0, 64)
    with pytest.raises(ConfigurationError, match=r"ranges must have shape \(2, 64\)"):
        quantize(VECTORS, "int8", np.zeros((2, 3), np.float32))


def test_probabilities_are_the_softmax_at_yes() -> None:
    log_odds = np.array([-1000, -2, 0, 3, 1000], dtype=np.float32)
    expected = [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-3)), 1]
    np.testing.assert_allclose(yes_probability(log_odds), expected, atol=1e-7)


def test_probabilities_are_exact_to_the_last_bit() -> None:
    log_odds = np.linspace(-30, 30, 601, dtype=np.float32)
    exact = [1 / (1 + math.exp(-x)) for x in log_odds.tolist()]
    np.testing.assert_array_equal(yes_probability(log_odds), np.array(exact, np.float32), strict=True)


def test_ties_keep_input_order() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.9], dtype=np.float32)
    assert [r.index for r in rank(scores, list("abcd"), None)] == [1, 3, 0, 2]
    assert [r.index for r in rank(scores, list("abcd"), 2)] == [1, 3]
    many = rank(np.tile(scores, 25), ["text"] * 100, None)  # a few keep their order however they are sorted
    assert [r.index for r in many] == [*range(1, 100, 2), *range(0, 100, 2)]


def test_the_six_published_models_are_listed() -> None:
    assert [m.name.rsplit("-", 1)[1] for m in PUBLISHED_MODELS] == ["0.6B", "4B", "8B"] * 2
    assert all(m.context == 32768 for m in PUBLISHED_MODELS)
    assert {m.kind for m in PUBLISHED_MODELS} == {"embedding", "reranking"}


def test_presets_are_distinct_sentences() -> None:
    assert len(set(PRESETS.values())) == len(PRESETS)
    with pytest.raises(TypeError):
        PRESETS["mine"] = "no"  # type: ignore[index]


def test_every_public_name_exists() -> None:
    assert sorted(qwen3_rag.__all__) == sorted(set(qwen3_rag.__all__))
    for name in qwen3_rag.__all__:
        assert getattr(qwen3_rag, name) is not None


def test_importing_the_package_imports_no_framework() -> None:
    names = {"torch", "transformers", "pandas", "pydantic", "langchain_core", "llama_index.core", "haystack"}
    script = f"import sys, qwen3_rag; print(sorted({names} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
