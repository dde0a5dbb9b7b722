"""What the files of a checkpoint say of it is believed: its kind, its score, its prompts and its context."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import CheckpointError, ConfigurationError, MissingExtraError, WrongModelKindError, demo
from qwen3_rag.checkpoint import Checkpoint, check_max_tokens, open_checkpoint
from qwen3_rag.models import ModelKind
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer

LIBRARY = "sentence_transformers.cross_encoder.modules"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reranker that no library has left its files in."""
    source = Path(demo.__file__).parent / "models" / "demo-reranker"
    found = shutil.copytree(source, tmp_path / "saved")
    (found / "config_sentence_transformers.json").unlink()
    return found


def opened(folder: Path, kind: ModelKind = "reranking", backend: str = "transformers") -> Checkpoint:
    return open_checkpoint(EngineSettings(kind, str(folder), backend=backend), weights=False)


def save_head(folder: Path, saved: dict[str, Any] | None, type_: str = f"{LIBRARY}.LogitScore") -> None:
    """Add what Sentence Transformers adds."""
    modules = [("", f"{LIBRARY}.Transformer"), ("1_Head", type_)]
    content = [{"idx": i, "name": str(i), "path": path, "type": name} for i, (path, name) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(content))
    if saved is not None:
        (folder / "1_Head").mkdir(exist_ok=True)
        (folder / "1_Head" / "config.json").write_text(json.dumps(saved))


def test_a_saved_reranker_that_scores_by_yes_and_no_is_taken(folder: Path) -> None:
    yes, no = PromptTokenizer.from_folder(folder).answer_ids()
    save_head(folder, {"true_token_id": yes, "false_token_id": no})
    assert opened(folder).is_classifier is False


def test_one_that_scores_by_anything_else_is_left_to_its_library(folder: Path) -> None:
    yes, no = PromptTokenizer.from_folder(folder).answer_ids()
    for saved in (
        None,
        {"true_token_id": no, "false_token_id": yes},
        {"true_token_id": yes},
        {"false_token_id": no},
    ):
        save_head(folder, saved)
        with pytest.raises(CheckpointError, match='backend="sentence-transformers"'):
            opened(folder)
        opened(folder, backend="sentence-transformers")


@pytest.mark.parametrize("type_", [f"{LIBRARY}.Dense", f"{LIBRARY}.Pooling", "somebody.LogitScore"])
def test_a_module_that_would_be_left_out_is_told(type_: str, folder: Path) -> None:
    yes, no = PromptTokenizer.from_folder(folder).answer_ids()
    save_head(folder, {"true_token_id": yes, "false_token_id": no}, type_)
    with pytest.raises(CheckpointError, match=type_.rpartition(".")[2]):
        opened(folder)


def test_files_tell_a_kind_that_the_name_does_not(folder: Path) -> None:
    opened(folder, "embedding")
    (folder / "1_Pooling").mkdir()
    with pytest.raises(WrongModelKindError, match="embedding model: give it to Embedder"):
        opened(folder)
    description = folder / "config_sentence_transformers.json"
    description.write_text('{"model_type": "CrossEncoder"}')
    opened(folder)
    with pytest.raises(WrongModelKindError, match="reranking model: give it to Reranker"):
        opened(folder, "embedding")


def test_a_conversion_to_classification_is_a_reranker(folder: Path) -> None:
    change(folder, architectures=["Qwen3ForSequenceClassification"])
    assert opened(folder).is_classifier is True
    with pytest.raises(WrongModelKindError, match="give it to Reranker"):
        opened(folder, "embedding")
    change(folder, architectures=None)
    assert opened(folder, "embedding").is_classifier is False


def test_prompts_are_known_by_all_names_that_they_are_saved_under(folder: Path) -> None:
    description = folder / "config_sentence_transformers.json"
    for saved, query, document in (
        (None, None, ""),
        ({}, None, ""),
        ({"query": "", "document": ""}, None, ""),
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, "q: ", "d: "),
        ({"passage": "p: "}, None, "p: "),
    ):
        description.write_text(json.dumps({"prompts": saved}))
        found = opened(folder, "embedding")
        assert (found.query_prompt, found.document_prompt) == (query, document)


def test_no_prompt_is_longer_than_the_context(folder: Path) -> None:
    change(folder, max_position_embeddings=40)
    found = opened(folder)
    check_max_tokens(40, found)
    check_max_tokens(1, found)
    with pytest.raises(ConfigurationError, match="1 to 40"):
        check_max_tokens(41, found)
    change(folder, max_position_embeddings=None)
    with pytest.raises(CheckpointError, match="max_position_embeddings"):
        opened(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert opened(folder).context == 32768


def test_another_hub_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingExtraError, match=r"qwen3-rag\[modelscope\]"):
        open_checkpoint(EngineSettings("embedding", "somebody/model", hub="modelscope"), weights=False)


def change(folder: Path, **changes: Any) -> None:
    """Change the model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
