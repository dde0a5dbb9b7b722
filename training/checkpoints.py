"""Reading and writing checkpoint folders in the layout of the published repositories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.prompts import END_OF_TEXT, query_prompt
from qwen3_rag.settings import EngineSettings
from transformers import AutoModel, AutoModelForCausalLM

_SMALL_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "generation_config.json",
    "chat_template.jinja",
)


def folder_of(model: str, kind: ModelKind) -> Path:
    """Return the local folder of a checkpoint, downloading a hub repository first.

    Raises:
        CheckpointError: there is no such checkpoint, or it is not of this kind.
    """
    return open_checkpoint(EngineSettings(kind, model), weights=True).folder


def load_weights(folder: Path, kind: ModelKind) -> Any:
    """Return a Qwen3Model (embedding) or Qwen3ForCausalLM (reranking) in float32."""
    auto_class = AutoModel if kind == "embedding" else AutoModelForCausalLM
    return auto_class.from_pretrained(str(folder), torch_dtype=torch.float32, use_safetensors=True)


def save(model: Any, folder: Path, *, like: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Save a model's weights with tokenizer and settings files of the checkpoint it came from.

    Args:
        model: without adapters (merge them first).
        folder: where to; it is made.
        like: the checkpoint folder that small files are copied from.
        dtype: of the saved weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    for name in _SMALL_FILES:
        if (like / name).is_file() and (like / name) != (folder / name):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(like / name, folder / name)


def write_small_files(folder: Path, tokenizer: Any, kind: ModelKind) -> None:
    """Write a new checkpoint's tokenizer and settings, as the published repositories have them.

    Args:
        folder: the checkpoint's; it is made.
        tokenizer: a `tokenizers.Tokenizer`; a reranker's must append nothing.
        kind: embedding checkpoints also get their pooling and prompts for Sentence Transformers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    files: dict[str, Any] = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 32768,
            "pad_token": END_OF_TEXT,
            "eos_token": "<|im_end|>",
        }
    }
    if kind == "embedding":
        files |= {
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {
                    "idx": 2,
                    "name": "2",
                    "path": "2_Normalize",
                    "type": "sentence_transformers.models.Normalize",
                },
            ],
            "1_Pooling/config.json": {
                "word_embedding_dimension": json.loads((folder / "config.json").read_text())["hidden_size"],
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": False,
                "pooling_mode_max_tokens": False,
                "pooling_mode_lasttoken": True,
                "include_prompt": True,
            },
            "config_sentence_transformers.json": {
                "prompts": {"query": query_prompt(DEFAULT_INSTRUCTION), "document": ""},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
        }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
