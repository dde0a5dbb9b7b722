"""Reading and writing checkpoint folders in the layout of the published repositories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from qwen3_rag.backends.transformers_version import dtype_keyword
from qwen3_rag.checkpoint import Checkpoint, open_checkpoint
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.prompts import END_OF_TEXT, query_prompt
from qwen3_rag.settings import EngineSettings
from transformers import AutoModel, AutoModelForCausalLM

_PROMPTS: Final = "config_sentence_transformers.json"
_RERANKER: Final = "CrossEncoder"
"""The model type that Sentence Transformers writes into the same file. It reads it only beside modules.json."""

_SMALL_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "modules.json",
    _PROMPTS,
    "1_Pooling/config.json",
    "1_LogitScore/config.json",
    "generation_config.json",
    "chat_template.jinja",
)


def find(model: str, kind: ModelKind) -> Checkpoint:
    """Return a checkpoint's local folder and what it was saved with, downloading a hub repository first.

    Raises:
        CheckpointError: there is no such checkpoint, or it is not of this kind.
    """
    return open_checkpoint(EngineSettings(kind, model), weights=True)


def load_weights(folder: Path, kind: ModelKind) -> Any:
    """Return a Qwen3Model (embedding) or Qwen3ForCausalLM (reranking) in float32."""
    auto_class = AutoModel if kind == "embedding" else AutoModelForCausalLM
    options: dict[str, Any] = {dtype_keyword(): torch.float32, "use_safetensors": True}
    return auto_class.from_pretrained(str(folder), **options)


def save(
    model: Any,
    folder: Path,
    *,
    like: Path,
    kind: ModelKind,
    dtype: torch.dtype = torch.bfloat16,
    prompt: str | None = None,
) -> None:
    """Save a model's weights with tokenizer and settings files of the checkpoint it came from.

    A reranker is marked as one, since nothing else in a folder tells it from an embedding model.

    Args:
        model: without adapters (merge them first).
        folder: where to; it is made.
        like: the checkpoint folder that small files are copied from.
        kind: of both.
        dtype: of the saved weights.
        prompt: what stands before queries from now on; None keeps that of `like`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    for name in _SMALL_FILES:
        if (like / name).is_file() and (like / name) != (folder / name):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(like / name, folder / name)
    _name_rope_for_every_release(folder / "config.json")
    saved = _read(folder / _PROMPTS) if (folder / _PROMPTS).exists() else {}
    if kind == "reranking":
        _write(folder / _PROMPTS, {"model_type": _RERANKER, **saved})
    if prompt is not None:
        prompts = {"document": "", **(saved.get("prompts") or {}), "query": prompt}
        _write(folder / _PROMPTS, {**saved, "prompts": prompts})


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
                "word_embedding_dimension": _read(folder / "config.json")["hidden_size"],
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": False,
                "pooling_mode_max_tokens": False,
                "pooling_mode_lasttoken": True,
                "include_prompt": True,
            },
            _PROMPTS: {
                "prompts": {"query": query_prompt(DEFAULT_INSTRUCTION), "document": ""},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
        }
    for name, content in files.items():
        _write(folder / name, content)


def _name_rope_for_every_release(config: Path) -> None:
    """State how positions are encoded also where Transformers 4 looks for it.

    Transformers 5 saves it in `rope_parameters` alone, which 4 passes over: it would compute with a base of
    10,000 in place of Qwen3's 1,000,000, and without scaling.
    """
    content = _read(config)
    parameters = content.get("rope_parameters")
    if parameters:
        content["rope_theta"] = parameters["rope_theta"]
        if parameters.get("rope_type", "default") != "default":
            content["rope_scaling"] = {k: v for k, v in parameters.items() if k != "rope_theta"}
        _write(config, content)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
