"""Yes/no training of a reranking checkpoint, on Transformers' trainer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import get_peft_model
from qwen3_rag.tokenization import PromptTokenizer
from torch import Tensor
from transformers import Trainer, TrainingArguments

from training import checkpoints
from training.embedder import Instruct, lora_config
from training.encoder import last_hidden, right_padded


@dataclass(frozen=True)
class Candidates:
    """A query with passages to tell apart.

    Attributes:
        query: what is asked.
        passages: the right one first, then wrong ones; equally many for every query.
    """

    query: str
    passages: tuple[str, ...]


@dataclass(frozen=True)
class RerankerSettings:
    """Hyper-parameters.

    Attributes:
        steps: optimiser steps.
        batch_size: queries of a step, each with all its candidates.
        learning_rate: at its highest; it warms up for a tenth of the steps and then falls to zero.
        max_tokens: of a whole prompt; longer documents are cut.
        yes_no: weight of the cross-entropy of each answer.
        listwise: weight of the softmax over a query's candidates.
        lora_rank: 0 trains all weights.
        kept: parts of names of weights that stay as they are; adapters keep all of them anyway. With
            `embed_tokens`, a tied head is kept too.
        seed: of order and adapters.
    """

    steps: int = 500
    batch_size: int = 4
    learning_rate: float = 1e-4
    max_tokens: int = 1024
    yes_no: float = 1.0
    listwise: float = 0.0
    lora_rank: int = 16
    kept: tuple[str, ...] = ()
    seed: int = 0


def train_reranker(
    model: str,
    candidates: Sequence[Candidates],
    output: Path,
    settings: RerankerSettings,
    *,
    instruct: Instruct,
) -> None:
    """Train on candidates and save a merged checkpoint that `qwen3_rag.Reranker` loads.

    Args:
        model: hub repository or folder to start from, a causal checkpoint.
        candidates: mined by `training.negatives.mine`.
        output: folder for the checkpoint.
        settings: hyper-parameters.
        instruct: gives each query its instruction.

    Raises:
        ValueError: queries have unequal numbers of candidates, or none.
    """
    counts = {len(item.passages) for item in candidates}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(f"every query needs equally many candidates, at least 2; got {sorted(counts)}")
    folder = checkpoints.find(model, "reranking").folder
    tokenizer = PromptTokenizer.from_folder(folder)
    causal = checkpoints.load_weights(folder, "reranking")
    if settings.lora_rank > 0:
        causal = get_peft_model(causal, lora_config(settings.lora_rank))
    for name, weight in causal.named_parameters():
        if settings.lora_rank == 0 and any(part in name for part in settings.kept):
            weight.requires_grad_(False)
    trainer = YesNoTrainer(
        model=causal,
        args=_arguments(output, settings),
        train_dataset=_shuffled(candidates, settings),
        data_collator=Collator(tokenizer, settings, instruct),
        answers=tokenizer.answer_ids(),
        weights=(settings.yes_no, settings.listwise),
    )
    trainer.train()
    causal = causal.cpu()
    merged = causal.merge_and_unload() if settings.lora_rank > 0 else causal
    checkpoints.save(merged, output, like=folder, kind="reranking")


class Collator:
    """Makes the core's token ids of all (query, passage) pairs of a batch.

    Args:
        tokenizer: the checkpoint's.
        settings: for `max_tokens` and `seed`.
        instruct: gives each query its instruction.
    """

    def __init__(self, tokenizer: PromptTokenizer, settings: RerankerSettings, instruct: Instruct) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = settings.max_tokens
        self._instruct = instruct
        self._generator = random.Random(settings.seed)

    def __call__(self, batch: Sequence[Candidates]) -> dict[str, Tensor]:
        """Return `input_ids` and `last` as `right_padded`, and `labels`, shape (queries, candidates)."""
        token_ids = []
        for item in batch:
            pairs = [(item.query, passage) for passage in item.passages]
            encoded = self._tokenizer.encode_pairs(
                pairs, instruction=self._instruct(self._generator), max_tokens=self._max_tokens
            )
            token_ids += encoded.token_ids
        labels = torch.zeros(len(batch), len(batch[0].passages))
        labels[:, 0] = 1.0
        return {**right_padded(token_ids), "labels": labels}


class YesNoTrainer(Trainer):
    """Trains the log-odds of `yes` against `no` at the last token, without a vocabulary of logits.

    Args:
        answers: token ids of `yes` and `no`.
        weights: of the cross-entropy of each answer, and of the softmax over a query's candidates.
        options: Transformers' own.
    """

    def __init__(self, *, answers: tuple[int, int], weights: tuple[float, float], **options: Any) -> None:
        super().__init__(**options)
        self._answers = answers
        self._weights = weights

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        """Return `loss_of` the batch."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        head = causal.get_output_embeddings().weight
        direction = (head[self._answers[0]] - head[self._answers[1]]).float()
        log_odds = (last_hidden(causal.model, inputs) @ direction).view_as(inputs["labels"])
        yes_no, listwise = self._weights
        loss = loss_of(log_odds, yes_no=yes_no, listwise=listwise)
        return (loss, {"logits": log_odds}) if return_outputs else loss


def loss_of(log_odds: Tensor, *, yes_no: float, listwise: float) -> Tensor:
    """Return the weighted sum of both cross-entropies, a mean over queries.

    Args:
        log_odds: shape (queries, candidates), of the right passage first.
        yes_no: weight of the cross-entropy of each answer; of a query's, right and wrong ones weigh the same.
        listwise: weight of the softmax over a query's candidates.
    """
    answers = (F.softplus(-log_odds[:, 0]).mean() + F.softplus(log_odds[:, 1:]).mean()) / 2
    right = torch.zeros(len(log_odds), dtype=torch.long, device=log_odds.device)
    return yes_no * answers + listwise * F.cross_entropy(log_odds, right)


def _shuffled(candidates: Sequence[Candidates], settings: RerankerSettings) -> list[Candidates]:
    generator = random.Random(settings.seed)
    rounds = -(-settings.steps * settings.batch_size // len(candidates))
    return [item for _ in range(rounds) for item in generator.sample(list(candidates), len(candidates))]


def _arguments(output: Path, settings: RerankerSettings) -> TrainingArguments:
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
        "remove_unused_columns": False,
    }
    return TrainingArguments(**options)
