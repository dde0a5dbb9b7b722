"""A Qwen3 embedding model as a Sentence Transformers module that sees exactly the core's token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from qwen3_rag.tokenization import PromptTokenizer
from sentence_transformers.sentence_transformer.modules import InputModule
from torch import Tensor

IGNORED = 0
"""Fills rows after the closing token, which causal attention keeps from mattering."""

_ROWS: Final = 32
"""Rows computed together."""


class Qwen3Encoder(InputModule):
    """Embeds texts as `qwen3_rag.Embedder` does: closing `<|endoftext|>`, final hidden state at it.

    Args:
        decoder: a Qwen3Model, possibly with adapters.
        tokenizer: the checkpoint's.
        max_tokens: longer texts are cut at their end.
    """

    def __init__(self, decoder: Any, tokenizer: PromptTokenizer, *, max_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.decoder = decoder
        self.prompt_tokenizer = tokenizer
        self.max_tokens = max_tokens

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Return `input_ids`, shape (n, longest), and `last`, shape (n,), where each closing token stands."""
        encoded = self.prompt_tokenizer.encode_texts(
            list(inputs), prompt="" if prompt is None else prompt, max_tokens=self.max_tokens, is_query=False
        )
        return right_padded(encoded.token_ids)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add `sentence_embedding`, shape (n, hidden), not normalised."""
        features["sentence_embedding"] = last_hidden(self.decoder, features)
        return features

    def get_embedding_dimension(self) -> int:
        """Return the length of a vector."""
        return int(self.decoder.config.hidden_size)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Save the decoder alone; `training.checkpoints.save` writes a whole folder."""
        self.decoder.save_pretrained(output_path)


def right_padded(token_ids: Sequence[Any]) -> dict[str, Tensor]:
    """Return rows of one length and the place of each row's last token."""
    lengths = torch.tensor([len(ids) for ids in token_ids])
    rows = torch.full((len(token_ids), int(lengths.max())), IGNORED)
    for row, ids in zip(rows, token_ids, strict=True):
        row[: len(ids)] = torch.as_tensor(ids)
    return {"input_ids": rows, "last": lengths - 1}


def last_hidden(decoder: Any, features: dict[str, Tensor]) -> Tensor:
    """Return the final hidden state at each row's last token, shape (n, hidden), float32.

    No attention mask is needed: what fills a row stands after its last token. Rows of like lengths are computed
    together, so that a batch with one long text is not all padding.
    """
    rows, last = features["input_ids"], features["last"]
    order = torch.argsort(last)
    states = []
    for part in torch.split(order, _ROWS):
        ends = last[part]
        ids = rows[part, : int(ends.max()) + 1]
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        states.append(hidden[torch.arange(len(part), device=hidden.device), ends].float())
    return torch.cat(states)[torch.argsort(order)]
