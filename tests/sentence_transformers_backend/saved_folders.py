"""Checkpoints as Sentence Transformers saves them, made from small ones with that library itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

HIDDEN = 64
"""Width of the small checkpoints."""

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
RERANK_TEMPLATE = (
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n<|im_start|>user\n"
    "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)
"""What a CrossEncoder of a Qwen3 reranker carries so that (query, document) pairs become its prompt.
Jinja drops a newline that ends a template, unless it is written as an expression."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
)
"""What the tokenizer of every Qwen3 chat model carries, shortened."""


def with_chat_template(source: Path, folder: Path, template: str) -> Path:
    """Copy a checkpoint and give its tokenizer a chat template."""
    shutil.copytree(source, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "chat_template": template}))
    return folder


def save_embedder(
    source: Path,
    folder: Path,
    *,
    pooling: str | tuple[str, ...] = "lasttoken",
    dense: int | None = None,
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
) -> Path:
    """Save a SentenceTransformer of a checkpoint's modules and some more."""
    modes = (pooling,) if isinstance(pooling, str) else pooling
    transformer = Transformer(str(source))
    modules: list[Any] = [transformer, Pooling(HIDDEN, pooling)]
    if dense is not None:
        modules.append(Dense(HIDDEN * len(modes), dense))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def save_cross_encoder(source: Path, folder: Path, **arguments: Any) -> Path:
    """Save a CrossEncoder of a checkpoint."""
    CrossEncoder(str(source), device="cpu", **arguments).save(str(folder), create_model_card=False)
    return folder


def normalised(vectors: Any) -> Any:
    """Scale rows to L2 norm 1."""
    import numpy as np

    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def modules_of(folder: Path) -> list[dict[str, Any]]:
    """Read modules.json."""
    found: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text())
    return found


def write_modules(folder: Path, modules: Sequence[dict[str, Any]]) -> None:
    """Replace modules.json."""
    (folder / "modules.json").write_text(json.dumps(list(modules)))
