"""This package's vectors and scores compared with those of a plain Hugging Face forward pass.

The reference pads on the left, masks the padding, computes everything for every text, and for a
reranker builds the logits of the whole vocabulary: slow, and simple enough to trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qwen3_rag import prompts
from qwen3_rag.backends.device.exclusive import one_at_a_time
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.embedder import Embedder
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.reranker import Reranker
from qwen3_rag.settings import DType, EngineSettings

CPU_TOLERANCE: Final = 1e-5
"""Largest absolute difference in float32: as in the contract of backends (`qwen3_rag.testing.backend`)."""
ACCELERATOR_TOLERANCE: Final = 1e-4
"""The same on other devices, whose order of summation depends on the batch's shape. Chosen, not tuned."""
HALF_TOLERANCE: Final = 1e-3
"""Of 1 - cosine, in bfloat16 and float16. Chosen, not tuned."""

QUERIES: Final = ("What is the capital of China?", "Explain gravity", "¿Dónde está la biblioteca?")
DOCUMENTS: Final = (
    "The capital of China is Beijing.",
    "Gravity pulls bodies towards each other. " * 12,
    "",
    "La biblioteca está al lado de la estación, y abre a las nueve.",
    "def add(a, b):\n    return a + b\n",
    "The capital of China is Beijing, a city of more than twenty million.",
)
LONG: Final = "The capital of China is Beijing. " * 180
"""More than 1,024 tokens, above which some kernels take another path. The reference embeds it alone: padding
the other texts to its length would take minutes."""


@dataclass(frozen=True)
class Check:
    """Outcome of one comparison.

    Attributes:
        name: what was compared.
        largest_difference: of any number from the reference's, in half precision of a vector's cosine from 1;
            None if it could not be computed.
        tolerance: the most that passes.
        error: what went wrong, if something did.
    """

    name: str
    largest_difference: float | None
    tolerance: float
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.largest_difference is not None and self.largest_difference <= self.tolerance


def check_embedder(model: str, device: torch.device, dtype: DType) -> Check:
    """Compare vectors of queries and documents, computed in `dtype`, with the reference's in float32."""
    settings = EngineSettings("embedding", model)
    checkpoint = open_checkpoint(settings, weights=True)
    with Embedder(model, device=str(device), dtype=dtype) as embedder:
        ours = np.concatenate([embedder.embed_queries(QUERIES), embedder.embed_documents([*DOCUMENTS, LONG])])
    query_prompt = checkpoint.query_prompt or prompts.query_prompt(DEFAULT_INSTRUCTION)
    texts = [query_prompt + query for query in QUERIES]
    texts += [checkpoint.document_prompt + document for document in (*DOCUMENTS, LONG)]
    tokenizer, end = _tokenizer(checkpoint.folder)
    rows = [[*_ids(tokenizer, text), end] for text in texts]
    reference = _load(transformers.AutoModel, checkpoint.folder, device)
    hidden = torch.cat(
        [
            _padded_forward(reference, part, end, device).last_hidden_state[:, -1]
            for part in (rows[:-1], rows[-1:])
        ]
    )
    theirs = torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy()
    if dtype == "float32":
        return _compare("embedding", ours, theirs, device)
    return Check(f"embedding in {dtype}", float(1 - (ours * theirs).sum(axis=1).min()), HALF_TOLERANCE)


def check_reranker(model: str, device: torch.device) -> Check:
    """Compare scores of all query and document pairs in float32."""
    checkpoint = open_checkpoint(EngineSettings("reranking", model), weights=True)
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    with Reranker(model, device=str(device), dtype="float32") as reranker:
        ours = reranker.score_pairs(pairs)
    tokenizer, end = _tokenizer(checkpoint.folder)
    prefix, suffix = _ids(tokenizer, prompts.RERANK_PREFIX), _ids(tokenizer, prompts.RERANK_SUFFIX)
    rows = [
        prefix + _ids(tokenizer, prompts.rerank_head(DEFAULT_INSTRUCTION, query) + document) + suffix
        for query, document in pairs
    ]
    if checkpoint.is_classifier:
        reference = _load(transformers.AutoModelForSequenceClassification, checkpoint.folder, device)
        reference.config.pad_token_id = end  # no prompt ends with it, so the last token is found
        theirs = _padded_forward(reference, rows, end, device).logits[:, 0].sigmoid()
    else:
        reference = _load(transformers.AutoModelForCausalLM, checkpoint.folder, device)
        logits = _padded_forward(reference, rows, end, device).logits[:, -1]
        answers = [_ids(tokenizer, prompts.NO)[0], _ids(tokenizer, prompts.YES)[0]]
        theirs = logits[:, answers].softmax(dim=-1)[:, 1]
    return _compare("reranking", ours, theirs.cpu().numpy(), device)


def tolerance(device: torch.device) -> float:
    """Return the largest difference that passes on a device."""
    return CPU_TOLERANCE if device.type == "cpu" else ACCELERATOR_TOLERANCE


def _compare(name: str, ours: NDArray[Any], theirs: NDArray[Any], device: torch.device) -> Check:
    if ours.shape != theirs.shape:
        return Check(name, None, tolerance(device), f"shape {ours.shape}, reference {theirs.shape}")
    return Check(name, float(np.abs(ours - theirs).max()), tolerance(device))


def _tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer, _ids(tokenizer, prompts.END_OF_TEXT)[0]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _load(auto_class: Any, folder: Path, device: torch.device) -> Any:
    with one_at_a_time():
        model = auto_class.from_pretrained(str(folder), attn_implementation="eager", use_safetensors=True)
    return model.float().to(device).eval()


@torch.inference_mode()
def _padded_forward(model: Any, rows: list[list[int]], padding: int, device: torch.device) -> Any:
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), padding)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for row, ids in enumerate(rows):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    return model(input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False)
