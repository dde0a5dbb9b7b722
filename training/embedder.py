"""Contrastive training of an embedding checkpoint, on Sentence Transformers' trainer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
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
)

from training import checkpoints
from training.encoder import Qwen3Encoder
from training.pairs import Pair

Instruct = Callable[[random.Random], str]
"""Gives a training query's instruction."""


@dataclass(frozen=True)
class EmbedderSettings:
    """Hyper-parameters.

    Attributes:
        steps: optimiser steps.
        batch_size: pairs of a step; each query's wrong passages are the others'.
        mini_batch_size: pairs computed at a time, which bounds memory.
        learning_rate: at its highest; it warms up for a tenth of the steps and then falls to zero.
        dimensions: lengths at which vectors are compared (Matryoshka); the model's own is always added.
        max_tokens: longer texts are cut.
        lora_rank: 0 trains all weights.
        seed: of order and adapters.
    """

    steps: int = 500
    batch_size: int = 64
    mini_batch_size: int = 16
    learning_rate: float = 1e-4
    dimensions: tuple[int, ...] = (32, 64, 128, 256, 512)
    max_tokens: int = 512
    lora_rank: int = 16
    seed: int = 0


def train_embedder(
    model: str, pairs: Sequence[Pair], output: Path, settings: EmbedderSettings, *, instruct: Instruct
) -> None:
    """Train on pairs and save a merged checkpoint that `qwen3_rag.Embedder` loads.

    Args:
        model: hub repository or folder to start from.
        pairs: queries and the passages that answer them.
        output: folder for the checkpoint.
        settings: hyper-parameters.
        instruct: gives each query its instruction.
    """
    folder = checkpoints.folder_of(model, "embedding")
    decoder = checkpoints.load_weights(folder, "embedding")
    if settings.lora_rank > 0:
        decoder = get_peft_model(decoder, lora_config(settings.lora_rank))
    encoder = Qwen3Encoder(decoder, PromptTokenizer.from_folder(folder), max_tokens=settings.max_tokens)
    transformer = SentenceTransformer(modules=[encoder])
    own = encoder.get_embedding_dimension()
    loss = MatryoshkaLoss(
        transformer,
        CachedMultipleNegativesRankingLoss(transformer, mini_batch_size=settings.mini_batch_size),
        matryoshka_dims=[*(d for d in settings.dimensions if d < own), own],
    )
    SentenceTransformerTrainer(
        model=transformer,
        args=_arguments(output, settings),
        train_dataset=_dataset(pairs, settings, instruct),
        loss=loss,
    ).train()
    decoder = encoder.decoder.cpu()
    checkpoints.save(decoder.merge_and_unload() if settings.lora_rank > 0 else decoder, output, like=folder)


def lora_config(rank: int) -> LoraConfig:
    """Return adapters of all linear layers, scaled to twice their rank."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none")


def _dataset(pairs: Sequence[Pair], settings: EmbedderSettings, instruct: Instruct) -> Dataset:
    generator = random.Random(settings.seed)
    rounds = -(-settings.steps * settings.batch_size // len(pairs))
    chosen = [pair for _ in range(rounds) for pair in generator.sample(list(pairs), len(pairs))]
    return Dataset.from_dict(
        {
            "anchor": [query_prompt(instruct(generator)) + pair.query for pair in chosen],
            "positive": [pair.passage for pair in chosen],
        }
    )


def _arguments(output: Path, settings: EmbedderSettings) -> SentenceTransformerTrainingArguments:
    options: dict[str, Any] = {
        "output_dir": str(output / "trainer"),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
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
