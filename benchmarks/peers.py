"""What a user would pick instead: the published snippets and Sentence Transformers, on the same checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from tests.oracle import EmbeddingOracle, RerankingOracle

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]
Score = Callable[[Sequence[tuple[str, str]]], Floats]

SWEEP: Final = (1, 4, 8, 16)
"""Batch sizes tried beside the default of 32."""

_TEMPLATE: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)


def sentence_transformer(folder: Path, dtype: torch.dtype) -> SentenceTransformer:
    """The checkpoint as Sentence Transformers runs it: last-token pooling, normalised."""
    transformer = Transformer(str(folder), model_kwargs={"dtype": dtype})
    pooling = Pooling(transformer.get_embedding_dimension(), "lasttoken")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def embed_by(model: SentenceTransformer, batch_size: int) -> Embed:
    """Its `encode` with a batch size."""
    return lambda texts: np.asarray(model.encode(list(texts), batch_size=batch_size), np.float32)


def cross_encoder(folder: Path, work: Path, dtype: torch.dtype) -> CrossEncoder:
    """The checkpoint as a CrossEncoder, with the template that makes the published prompt."""
    copy = work / "cross-encoder"
    shutil.copytree(folder, copy)
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": _TEMPLATE}))
    return CrossEncoder(str(copy), device="cpu", model_kwargs={"dtype": dtype})


def score_by(model: CrossEncoder, instruction: str, batch_size: int) -> Score:
    """Its `predict` with a batch size."""

    def score(pairs: Sequence[tuple[str, str]]) -> Floats:
        options: dict[str, Any] = {"prompt": instruction, "activation_fn": torch.nn.Sigmoid()}
        return np.asarray(model.predict(list(pairs), batch_size=batch_size, **options), np.float32)

    return score


def embed_by_snippet(folder: Path, dtype: torch.dtype, batch_size: int) -> Embed:
    """The model card's transformers snippet, batches in the order given."""
    oracle = EmbeddingOracle(folder, dtype)
    return lambda texts: np.concatenate([oracle.embed(batch) for batch in _batches(texts, batch_size)])


def score_by_snippet(folder: Path, dtype: torch.dtype, batch_size: int) -> Score:
    """The model card's transformers snippet, with the logits of the last position only."""
    oracle = RerankingOracle(folder, dtype)
    return lambda pairs: np.concatenate([oracle.score(batch) for batch in _batches(pairs, batch_size)])


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
