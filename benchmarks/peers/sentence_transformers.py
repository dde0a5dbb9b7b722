"""Sentence Transformers: `SentenceTransformer.encode` and `CrossEncoder.predict`.

The checkpoint has the published repository's `modules.json`. As a second peer it is loaded without that file,
as a checkpoint that someone has trained with Transformers would be: the library then wraps each text in the
tokenizer's chat template, which parity is to catch. That is so on any device, and seen on a CPU, where memory
for the weights once more is not dear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from qwen3_rag import DEFAULT_INSTRUCTION
from sentence_transformers import CrossEncoder, SentenceTransformer

from benchmarks.checkpoints import CHAT_TEMPLATE, variant
from benchmarks.run_setup import Setup
from benchmarks.ways import Peer, Run, batch_name, by_batch_size, clocked

DEFAULT_BATCH: Final = 32
"""Of `encode` and `predict`, version 6."""

RERANK_TEMPLATE: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)
"""Makes CrossEncoder's prompt the published one."""


def load_embedding(setup: Setup, folder: Path) -> SentenceTransformer:
    """A folder as Sentence Transformers loads it."""
    return SentenceTransformer(str(folder), device=str(setup.device), model_kwargs={"dtype": setup.dtype})


def embedding(setup: Setup, _: ExitStack) -> list[Peer]:
    """`encode`, with and without the published repository's files."""
    folder = setup.checkpoint("embedding")
    model = load_embedding(setup, folder)
    queries = {"encode": clocked(lambda texts: model.encode(list(texts), prompt_name="query"))}
    default = batch_name(DEFAULT_BATCH)
    peers = [Peer("Sentence Transformers", _settings(setup, lambda: model), default, queries)]
    if setup.device.type == "cpu":
        plain = setup.work / "plain"
        if not plain.exists():
            variant(folder, plain, chat_template=CHAT_TEMPLATE, keep_modules=False)
        load_plain = cache(lambda: load_embedding(setup, plain))
        name = "Sentence Transformers, without modules.json"
        peers.append(Peer(name, _settings(setup, load_plain), default))
    return peers


def _settings(setup: Setup, load: Callable[[], SentenceTransformer]) -> dict[str, Run]:
    def documents(size: int) -> Run:
        return clocked(lambda texts: load().encode(list(texts), batch_size=size))

    return by_batch_size(documents, setup.swept_batches, DEFAULT_BATCH)


def cross_encoder_folder(setup: Setup) -> Path:
    """The checkpoint with a chat template that makes the published prompt."""
    target = setup.work / "cross-encoder"
    if not target.exists():
        variant(setup.checkpoint("reranking"), target, chat_template=RERANK_TEMPLATE, keep_modules=True)
    return target


def reranking(setup: Setup, _: ExitStack) -> list[Peer]:
    """`predict`."""
    model = CrossEncoder(
        str(cross_encoder_folder(setup)), device=str(setup.device), model_kwargs={"dtype": setup.dtype}
    )
    options: dict[str, Any] = {"prompt": DEFAULT_INSTRUCTION, "activation_fn": torch.nn.Sigmoid()}

    def scores(size: int) -> Run:
        def predict(pairs: Sequence[Any]) -> Any:
            return np.asarray(model.predict(list(pairs), batch_size=size, **options))

        return clocked(predict)

    settings = by_batch_size(scores, setup.swept_batches, DEFAULT_BATCH)
    return [Peer("CrossEncoder", settings, batch_name(DEFAULT_BATCH))]
