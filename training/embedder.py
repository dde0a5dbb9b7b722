"""Contrastive training of an embedding checkpoint, on Sentence Transformers' trainer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from qwen3_rag.prompts import query_prompt
from qwen3_rag.tokenization import PromptTokenizer
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from training import checkpoints
from training.batches import dataset_of, distinct_batches, draw_negatives, in_given_order
from training.encoder import Qwen3Encoder
from training.pairs import Pair

Instruct = Callable[[random.Random], str]
"""Gives a training query's instruction."""


@dataclass(frozen=True)
class EmbedderSettings:
    """Hyper-parameters.

    Attributes:
        steps: optimiser steps.
        batch_size: most pairs of a step; each query's wrong passages are the others'.
        mini_batch_size: pairs computed at a time, which bounds memory; from `batch_size` on, nothing is
            computed twice.
        learning_rate: at its highest; it warms up for a tenth of the steps and then falls to zero.
        dimensions: lengths at which vectors are compared (Matryoshka); the model's own is always added.
        max_tokens: longer texts are cut.
        lora_rank: 0 trains all weights.
        train_tokens: False keeps the token table as it is, which adapters do anyway.
        negatives: wrong passages of a query's own, beside the other pairs'; they must be given.
        seed: of order and adapters.
    """

    steps: int = 500
    batch_size: int = 64
    mini_batch_size: int = 16
    learning_rate: float = 1e-4
    dimensions: tuple[int, ...] = (32, 64, 128, 256, 512)
    max_tokens: int = 512
    lora_rank: int = 16
    train_tokens: bool = True
    negatives: int = 0
    seed: int = 0


def train_embedder(
    model: str,
    pairs: Sequence[Pair],
    output: Path,
    settings: EmbedderSettings,
    *,
    instruct: Instruct | None = None,
    prompt: str | None = None,
    mined: Mapping[Pair, Sequence[str]] | None = None,
) -> None:
    """Train on pairs and save a merged checkpoint that `qwen3_rag.Embedder` loads.

    Args:
        model: hub repository or folder to start from.
        pairs: queries and the passages that answer them.
        output: folder for the checkpoint.
        settings: hyper-parameters.
        instruct: gives each query its instruction; the saved query prompt stays the start's.
        prompt: stands before all queries instead, and is saved as the checkpoint's query prompt.
        mined: wrong passages of each pair, if the settings ask for any; see `draw_negatives`.

    Raises:
        ValueError: `instruct` and `prompt` are both given or both not, or there is nothing to tell apart.
    """
    before_query = _before_query(instruct, prompt)
    start = checkpoints.find(model, "embedding")
    decoder = checkpoints.load_weights(start.folder, "embedding")
    if settings.lora_rank > 0:
        decoder = get_peft_model(decoder, lora_config(settings.lora_rank))
    elif not settings.train_tokens:
        decoder.get_input_embeddings().weight.requires_grad_(False)
    encoder = Qwen3Encoder(decoder, PromptTokenizer.from_folder(start.folder), max_tokens=settings.max_tokens)
    transformer = SentenceTransformer(modules=[encoder])
    own = encoder.get_embedding_dimension()
    loss = MatryoshkaLoss(
        transformer,
        _contrastive(transformer, settings),
        matryoshka_dims=[*(d for d in settings.dimensions if d < own), own],
    )
    generator = random.Random(settings.seed)
    batches = distinct_batches(pairs, steps=settings.steps, batch_size=settings.batch_size, generator=generator)
    negatives = draw_negatives(batches, mined or {}, count=settings.negatives, generator=generator)
    SentenceTransformerTrainer(
        model=transformer,
        args=_arguments(output, settings, batches),
        train_dataset=dataset_of(
            batches,
            query=lambda text: before_query(generator) + text,
            passage=start.document_prompt.__add__,
            negatives=negatives,
        ),
        loss=loss,
    ).train()
    decoder = encoder.decoder.cpu()
    merged = decoder.merge_and_unload() if settings.lora_rank > 0 else decoder
    checkpoints.save(merged, output, like=start.folder, kind="embedding", prompt=prompt)


def _contrastive(transformer: SentenceTransformer, settings: EmbedderSettings) -> torch.nn.Module:
    """Return the loss over a batch's pairs, computed in parts if they do not go at once."""
    if settings.mini_batch_size < settings.batch_size:
        return CachedMultipleNegativesRankingLoss(transformer, mini_batch_size=settings.mini_batch_size)
    return MultipleNegativesRankingLoss(transformer)


def _before_query(instruct: Instruct | None, prompt: str | None) -> Callable[[random.Random], str]:
    """Return what gives each query its whole prompt."""
    if instruct is not None and prompt is None:
        return lambda generator: query_prompt(instruct(generator))
    if prompt is not None and instruct is None:
        return lambda _: prompt
    raise ValueError(f"give either instruct or prompt, got instruct={instruct!r} and prompt={prompt!r}")


def lora_config(rank: int) -> LoraConfig:
    """Return adapters of all linear layers, scaled to twice their rank."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none")


def _arguments(
    output: Path, settings: EmbedderSettings, batches: Sequence[Sequence[Pair]]
) -> SentenceTransformerTrainingArguments:
    options: dict[str, Any] = {
        "output_dir": str(output / "trainer"),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "batch_sampler": in_given_order(batches),
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.steps // 10,
        "lr_scheduler_type": "cosine",
        "seed": settings.seed,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
    }
    return SentenceTransformerTrainingArguments(**options)
