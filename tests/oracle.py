"""The truth: the published transformers snippets, in the form of the model cards.

Left padding, Hugging Face's own attention with a padding mask, logits over the whole vocabulary
(those of the last position: the cards compute all positions and then throw the others away).
Written from the strings of the cards on purpose, sharing nothing with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM

PAD = 151643
RERANK_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
RERANK_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


class EmbeddingOracle:
    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").to(dtype).eval()

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], *, task: str | None = None, dimensions: int | None = None, most: int = 8192
    ) -> np.ndarray:
        given = texts if task is None else [f"Instruct: {task}\nQuery:{text}" for text in texts]
        rows = [self.tokenizer.encode(text).ids for text in given]
        rows = [row if len(row) <= most else [*row[: most - 1], row[-1]] for row in rows]
        hidden = self.model(**_padded(rows), use_cache=False).last_hidden_state[:, -1].float()
        return torch.nn.functional.normalize(hidden[:, :dimensions], p=2, dim=1).numpy()


class RerankingOracle:
    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").to(dtype).eval()

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]], *, task: str = TASK, most: int = 8192) -> np.ndarray:
        prefix = self._ids(RERANK_PREFIX)
        suffix = self._ids(RERANK_SUFFIX)
        rows = []
        for query, document in pairs:
            body = self._ids(f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}")
            rows.append([*prefix, *body[: most - len(prefix) - len(suffix)], *suffix])
        logits = self.model(**_padded(rows), use_cache=False, logits_to_keep=1).logits[:, -1].float()
        both = torch.stack([logits[:, 2152], logits[:, 9693]], dim=1)
        return torch.nn.functional.log_softmax(both, dim=1)[:, 1].exp().numpy()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids
