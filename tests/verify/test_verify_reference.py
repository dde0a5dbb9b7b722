"""The local model that answers are compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_model import YES
from qwen3_rag.backends.transformers.backend import TransformersBackend
from qwen3_rag.checkpoint import Checkpoint, open_checkpoint
from qwen3_rag.settings import EngineSettings
from qwen3_rag.verification.reference import Reference, unit
from safetensors.torch import load_file, save_file
from subjects import reference_of


def test_weights_are_downloaded_too(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def opened(settings: EngineSettings, *, weights: bool) -> Checkpoint:
        asked.append(weights)
        return open_checkpoint(settings, weights=weights)

    monkeypatch.setattr("qwen3_rag.verification.reference.open_checkpoint", opened)
    reference_of("embedding", embedding_checkpoint).close()
    assert asked == [True]


def test_the_model_is_freed_at_the_end(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[TransformersBackend] = []
    monkeypatch.setattr(TransformersBackend, "close", lambda backend: closed.append(backend))
    with reference_of("embedding", embedding_checkpoint):
        assert closed == []
    assert len(closed) == 1


def test_an_answer_of_several_tokens_is_no_ones_head(
    reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another vocabulary may not have "True", "false" or "Yes" whole."""
    whole = Reference.ids
    in_two = ("Yes", "false")
    monkeypatch.setattr(Reference, "ids", lambda self, *parts: whole(self, *parts) * (1 + (parts[0] in in_two)))
    with reference_of("reranking", reranking_checkpoint) as reference:
        heads = reference.heads()
        rows = load_file(reranking_checkpoint / "model.safetensors")["model.embed_tokens.weight"].numpy()
        others = [
            rows[reference.ids(yes)[0]] - rows[reference.ids(no)[0]]
            for yes, no in [("True", "False"), ("1", "0")]
        ]
    np.testing.assert_array_equal(heads["wrong-answer-tokens"], others)


def test_the_heads_rows_are_found_in_whichever_file_holds_them(
    reranking_checkpoint: Path, tmp_path: Path
) -> None:
    rows = load_file(reranking_checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    save_file({"other": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "model-00002-of-00002.safetensors")
    with reference_of("reranking", reranking_checkpoint) as reference:
        reference.checkpoint = replace(reference.checkpoint, folder=tmp_path)
        np.testing.assert_array_equal(reference.heads()["one-answer-token"], [rows[YES].numpy()])


def test_only_the_right_head_is_known_where_the_files_name_no_rows(
    reranking_checkpoint: Path, tmp_path: Path
) -> None:
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with reference_of("reranking", reranking_checkpoint) as reference:
        reference.checkpoint = replace(reference.checkpoint, folder=tmp_path)
        assert set(reference.heads()) == {""}


@pytest.mark.parametrize(("share", "is_kept"), [(0.019, True), (0.021, False)])
def test_a_converted_head_may_be_off_by_the_rounding_of_bfloat16(
    share: float, is_kept: bool, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reference_of("reranking", reranking_checkpoint) as reference:
        assert reference._yes_minus_no is not None
        monkeypatch.setattr(reference, "_yes_minus_no", reference._yes_minus_no / np.float32(1 - share))
        assert ("one-answer-token" in reference.heads()) == is_kept


def test_a_vector_of_zeros_has_no_direction_and_stays() -> None:
    rows = np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(rows, [[3, 4], [0, 0]], err_msg="answers are needed as they came")
