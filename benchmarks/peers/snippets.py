"""The model cards' transformers snippets, and from them the answers that all ways are compared with.

The code is the cards', cut into functions, in the order of the cards, with a batch size (the cards' code
takes all texts at once). The embedding card leaves gradients on, which keeps every activation: they
are switched off here, in its favour. One text at a time there is no padding: a plain forward pass over one
prompt, this project's definition of right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from qwen3_rag import DEFAULT_INSTRUCTION
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.run_setup import Setup
from benchmarks.ways import Floats, Peer, by_batch_size, clocked

PREFIX: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
Pair = tuple[str, str]


class EmbeddingSnippet:
    """The card of Qwen3-Embedding.

    Args:
        max_length: the card's 8,192, unless a longer text is to be embedded.
    """

    def __init__(self, setup: Setup, *, max_length: int = 8192) -> None:
        folder = setup.checkpoint("embedding")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = AutoModel.from_pretrained(folder, dtype=setup.dtype)
        self.model = model.to(setup.device).eval()
        self.max_length = max_length

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors of one batch."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        outputs = self.model(**batch)
        embeddings = _last_token_pool(outputs.last_hidden_state, batch["attention_mask"])
        return _numbers(F.normalize(embeddings, p=2, dim=1))


class RerankingSnippet:
    """The card of Qwen3-Reranker."""

    def __init__(self, setup: Setup) -> None:
        folder = setup.checkpoint("reranking")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=setup.dtype)
        self.model = model.to(setup.device).eval()
        self.no, self.yes = (self.tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair], *, all_positions: bool) -> Floats:
        """P(yes) of one batch.

        Args:
            all_positions: as published: logits of all positions, of which all but the last are thrown
                away. False asks the model for the last position's only.
        """
        batch = self.tokenizer.pad(
            {"input_ids": rerank_token_ids(self.tokenizer, pairs)}, padding=True, return_tensors="pt"
        )
        kept: dict[str, Any] = {} if all_positions else {"logits_to_keep": 1}
        logits = self.model(**batch.to(self.model.device), **kept).logits[:, -1, :]
        both = torch.stack([logits[:, self.no], logits[:, self.yes]], dim=1)
        return _numbers(F.log_softmax(both, dim=1)[:, 1].exp())


def rerank_token_ids(tokenizer: Any, pairs: Sequence[Pair]) -> list[list[int]]:
    """Whole prompts as the card makes them."""
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    given = [
        f"<Instruct>: {DEFAULT_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
        for query, document in pairs
    ]
    room = 8192 - len(prefix) - len(suffix)
    inputs = tokenizer(
        given, padding=False, truncation="longest_first", return_attention_mask=False, max_length=room
    )
    return [[*prefix, *ids, *suffix] for ids in inputs["input_ids"]]


def embedding(setup: Setup, _: ExitStack) -> list[Peer]:
    """Batches in the order given."""
    snippet = EmbeddingSnippet(setup)

    def query(texts: Sequence[str]) -> Floats:
        return snippet.embed([QUERY_PROMPT + text for text in texts])

    settings = by_batch_size(lambda size: clocked(in_batches(snippet.embed, size)), setup.swept_batches, None)
    return [Peer("published snippet", settings, None, {"one text": clocked(query)})]


def reranking(setup: Setup, _: ExitStack) -> list[Peer]:
    """As published, and with the logits of the last position only."""
    snippet = RerankingSnippet(setup)

    def peer(name: str, *, all_positions: bool, wraps: str | None = None) -> Peer:
        def score(pairs: Sequence[Pair]) -> Floats:
            return snippet.score(pairs, all_positions=all_positions)

        settings = by_batch_size(lambda size: clocked(in_batches(score, size)), setup.swept_batches, None)
        return Peer(name, settings, wraps=wraps)

    better = "published snippet, last position's logits"
    return [peer(better, all_positions=False), peer("published snippet", all_positions=True, wraps=better)]


def in_batches(function: Callable[[Sequence[Any]], Floats], size: int) -> Callable[[Sequence[Any]], Floats]:
    """Apply a function to batches of items in the order given."""

    def run(items: Sequence[Any]) -> Floats:
        return np.concatenate([function(items[start : start + size]) for start in range(0, len(items), size)])

    return run


def _last_token_pool(states: Tensor, mask: Tensor) -> Tensor:
    if mask[:, -1].sum() == mask.shape[0]:
        return states[:, -1]
    lengths = mask.sum(dim=1) - 1
    return states[torch.arange(states.shape[0], device=states.device), lengths]


def _numbers(values: Tensor) -> Floats:
    numbers: Floats = values.float().cpu().numpy()
    return numbers
