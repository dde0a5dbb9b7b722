"""Saved prompts, pooling files and hubs are read; nothing is guessed."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import CheckpointError, Embedder, Reranker
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def published_layout(source: Path, folder: Path, *, prompts: dict[str, str], pooling: dict[str, Any]) -> Path:
    """A checkpoint with the extra files of a Sentence Transformers repository."""
    shutil.copytree(source, folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_a_published_repository_uses_its_own_query_prompt(embedding_checkpoint: Path, tmp_path: Path) -> None:
    saved = {"query": "Instruct: Find my thing\nQuery:", "document": ""}
    folder = published_layout(
        embedding_checkpoint, tmp_path / "st", prompts=saved, pooling={"pooling_mode_lasttoken": True}
    )
    embedder, plain = Embedder(str(folder), **OPTIONS), Embedder(str(embedding_checkpoint), **OPTIONS)
    expected = plain.embed_queries(["a"], instruction="Find my thing")
    np.testing.assert_allclose(embedder.embed_queries(["a"]), expected, atol=1e-6)
    np.testing.assert_allclose(
        embedder.embed_queries(["a"], instruction="code"),
        plain.embed_queries(["a"], instruction="code"),
        atol=1e-6,
    )
    np.testing.assert_allclose(embedder.embed_documents(["a"]), plain.embed_documents(["a"]), atol=1e-6)


def test_a_saved_document_prompt_is_applied(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = published_layout(
        embedding_checkpoint,
        tmp_path / "st",
        prompts={"document": "passage: "},
        pooling={"pooling_mode_lasttoken": True},
    )
    plain = Embedder(str(embedding_checkpoint), **OPTIONS)
    found = Embedder(str(folder), **OPTIONS).embed_documents(["a"])
    np.testing.assert_allclose(found, plain.embed_documents(["passage: a"]), atol=1e-6)


PUBLISHED_POOLING = {
    "word_embedding_dimension": 64,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_lasttoken": True,
    "include_prompt": True,
}


def test_the_published_pooling_file_also_lists_what_is_not_done(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = published_layout(embedding_checkpoint, tmp_path / "st", prompts={}, pooling=PUBLISHED_POOLING)
    opened = open_checkpoint(EngineSettings("embedding", str(folder)), weights=False)
    assert opened.hidden_size == 64


def test_pooling_that_lost_its_file_is_not_taken_for_the_right_one(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = published_layout(embedding_checkpoint, tmp_path / "st", prompts={}, pooling=PUBLISHED_POOLING)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="not last-token pooling"):
        Embedder(str(folder), **OPTIONS).load()


@pytest.mark.parametrize("pooling", [{"pooling_mode_mean_tokens": True}, {"pooling_mode": "cls"}])
def test_other_pooling_is_refused(embedding_checkpoint: Path, tmp_path: Path, pooling: dict[str, Any]) -> None:
    folder = published_layout(embedding_checkpoint, tmp_path / "st", prompts={}, pooling=pooling)
    with pytest.raises(CheckpointError, match="not last-token pooling"):
        Embedder(str(folder), **OPTIONS).load()


def test_modules_after_pooling_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = published_layout(
        embedding_checkpoint, tmp_path / "st", prompts={}, pooling={"pooling_mode": "lasttoken"}
    )
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="Dense module after pooling"):
        Embedder(str(folder), **OPTIONS).load()


def test_a_module_that_only_has_the_name_of_a_known_one_is_refused(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    for component, checkpoint in ((Embedder, embedding_checkpoint), (Reranker, reranking_checkpoint)):
        folder = shutil.copytree(checkpoint, tmp_path / checkpoint.name)
        modules = [{"idx": 0, "name": "0", "path": "", "type": "somebody.models.Transformer"}]
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(CheckpointError, match=r"somebody\.models\.Transformer, which is not"):
            component(str(folder), **OPTIONS).load()


def test_a_folder_without_tokenizer_json_falls_back_to_its_vocabulary(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "slow")
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token for token in model["added_tokens"]}
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added.values()}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder})
    )
    texts = ["The capital of China is Beijing.", "北京 <|im_end|> 🙂"]
    expected = Embedder(str(embedding_checkpoint), **OPTIONS).embed_documents(texts)
    np.testing.assert_allclose(Embedder(str(folder), **OPTIONS).embed_documents(texts), expected, atol=1e-6)


def test_modelscope_downloads_through_its_own_library(embedding_checkpoint: Path, monkeypatch: Any) -> None:
    """No network here, so the library is a stand-in with the signature of modelscope 1.20 and later."""
    asked: list[Any] = []

    def snapshot_download(model_id: str, revision: str | None = None, allow_patterns: Any = None) -> str:
        asked.append((model_id, revision, "*.safetensors" in allow_patterns))
        return str(embedding_checkpoint)

    module: Any = types.ModuleType("modelscope")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", module)
    embedder = Embedder("Qwen/Qwen3-Embedding-0.6B", hub="modelscope", revision="v1", **OPTIONS)
    assert embedder.embed_documents(["a"]).shape == (1, 64)
    assert asked == [("Qwen/Qwen3-Embedding-0.6B", "v1", False), ("Qwen/Qwen3-Embedding-0.6B", "v1", True)]


PUBLISHED_DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical "
    "objects and is responsible for the movement of planets around the sun.",
]
PUBLISHED_QUERIES = ["What is the capital of China?", "Explain gravity"]
PUBLISHED_SIMILARITY = [[0.7645568, 0.1414251], [0.1354974, 0.5999550]]


@pytest.mark.hub
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-4), ("bfloat16", 3e-3)])
def test_the_published_example_gives_the_published_numbers(dtype: Any, tolerance: float) -> None:
    """Numbers from the model card of Qwen3-Embedding-0.6B."""
    try:
        embedder = Embedder(dtype=dtype).load()
    except CheckpointError as error:
        pytest.skip(f"the published weights cannot be had here: {error}"[:200])
    similarity = embedder.embed_queries(PUBLISHED_QUERIES) @ embedder.embed_documents(PUBLISHED_DOCUMENTS).T
    np.testing.assert_allclose(similarity, PUBLISHED_SIMILARITY, atol=tolerance)


@pytest.mark.hub
def test_the_published_reranker_tells_right_from_wrong() -> None:
    try:
        reranker = Reranker().load()
    except CheckpointError as error:
        pytest.skip(f"the published weights cannot be had here: {error}"[:200])
    for index, query in enumerate(PUBLISHED_QUERIES):
        scores = reranker.score(query, PUBLISHED_DOCUMENTS)
        assert scores[index] > 0.9 > 0.1 > scores[1 - index]


def test_a_tokenizer_is_read_once_and_again_when_its_file_changes(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes((embedding_checkpoint / "tokenizer.json").read_bytes())
    first = PromptTokenizer.from_folder(tmp_path)
    assert PromptTokenizer.from_folder(tmp_path) is first
    assert PromptTokenizer.from_folder(tmp_path, parse_special_tokens=True) is not first
    copy.write_text("{}")
    with pytest.raises(CheckpointError, match="cannot read a tokenizer"):
        PromptTokenizer.from_folder(tmp_path)
