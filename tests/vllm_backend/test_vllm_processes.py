"""Engines with processes of their own: right numbers, and nothing left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder, Reranker
from vllm_processes import SECONDS, Process, is_alive
from vllm_texts import generated_pairs, generated_texts


@pytest.fixture(scope="module")
def found(apart: tuple[Process, Path]) -> dict[str, Any]:
    """Results of the script, after it has ended."""
    process, results = apart
    output = process.wait(SECONDS)
    assert process.popen.returncode == 0, output
    return dict(json.loads(results.read_text()))


def test_vectors_of_an_engine_process_are_equal(found: dict[str, Any], embedding_folder: Path) -> None:
    with Embedder(str(embedding_folder), dtype="float32", device="cpu") as embedder:
        expected = embedder.embed_documents(generated_texts())
    assert len(found["engine"]) >= 1
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-5)


def test_a_killed_engine_process_is_one_clear_error_and_then_replaced(found: dict[str, Any]) -> None:
    assert "vLLM's process" in found["died"]
    assert "the next call starts another" in found["died"]
    assert found["died_for_all"], "a merged batch would be halved, and each half start an engine to kill it"
    np.testing.assert_allclose(found["vectors_again"], found["vectors"], atol=1e-6)


def test_two_copies_of_a_model_score_like_one(found: dict[str, Any], reranking_folder: Path) -> None:
    with Reranker(str(reranking_folder), dtype="float32", device="cpu") as reranker:
        expected = reranker.score_pairs(generated_pairs())
    assert found["copies"] >= 2
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)


def test_two_devices_that_share_each_layer_score_like_one(
    found: dict[str, Any], reranking_folder: Path
) -> None:
    """Tensor parallelism; two processes on the CPU stand for two devices."""
    with Reranker(str(reranking_folder), dtype="float32", device="cpu") as reranker:
        expected = reranker.score_pairs(generated_pairs())
    assert found["shares"] == 2
    np.testing.assert_allclose(found["scores_of_shares"], expected, atol=1e-5)


def test_close_leaves_no_process(found: dict[str, Any]) -> None:
    assert found["before"] == found["after_close"] == found["after_closing_shares"] == []


@pytest.mark.parametrize("processes", ["engine", "left_open"])
def test_neither_a_kill_nor_the_interpreters_end_leaves_a_process(
    found: dict[str, Any], processes: str
) -> None:
    """`engine` lost its first process to a kill; `left_open` was not closed when the interpreter ended."""
    assert found[processes]
    deadline = time.monotonic() + 60
    while any(map(is_alive, found[processes])) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in found[processes] if is_alive(pid)] == []


def test_a_script_without_a_guard_is_told_what_to_do(unguarded: Process) -> None:
    output = unguarded.wait(SECONDS)
    assert unguarded.popen.returncode == 1
    assert "ConfigurationError: vLLM starts a process that imports this script again" in output
    assert 'put what it runs under `if __name__ == "__main__":`' in output
    assert "VLLM_ENABLE_V1_MULTIPROCESSING=0" in output
