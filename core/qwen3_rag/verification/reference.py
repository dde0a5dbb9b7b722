"""The local model: final hidden states of any token ids, and directions that a head may project them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from qwen3_rag import prompts
from qwen3_rag.backends.device.choice import choose_device, choose_dtype
from qwen3_rag.backends.transformers.backend import TransformersBackend
from qwen3_rag.backends.transformers.loading import LoadedModel, load_model
from qwen3_rag.checkpoint import Checkpoint, open_checkpoint
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompt
from qwen3_rag.verification.matching import Floats

TokenList = list[int]

_ROUNDING: Final = 0.02
"""Relative distance of vectors that rounding to bfloat16 may cause: it changes a number by up to 0.4%."""

_OTHER_ANSWERS: Final = (("Yes", "No"), ("true", "false"), ("True", "False"), ("1", "0"))
"""Pairs of answer tokens of other families' rerankers, positive first."""


class Reference:
    """A checkpoint run by the Transformers backend's decoder.

    Args:
        settings: names the checkpoint, kind, device and element type; its backend is not used.

    Attributes:
        kind: embedding or reranking.
        checkpoint: the local files.
        tokenizer: recognises special tokens in what it encodes; the fixed texts hold none.

    Raises:
        CheckpointError, ConfigurationError: as for `Embedder` and `Reranker`.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.kind = settings.kind
        device = choose_device(settings.one_device)
        self.checkpoint: Checkpoint = open_checkpoint(settings, weights=True)
        loaded = load_model(
            self.checkpoint,
            settings.kind,
            device=device,
            dtype=choose_dtype(settings.dtype, device),
            model_kwargs={},
        )
        self.tokenizer = PromptTokenizer.from_folder(self.checkpoint.folder, parse_special_tokens=True)
        self._yes_minus_no = None if loaded.yes_minus_no is None else loaded.yes_minus_no.cpu().numpy()
        self._backend = TransformersBackend(
            LoadedModel(loaded.decoder, None), token_budget=settings.token_budget, share_prefixes=True
        )

    @property
    def context(self) -> int:
        """Most tokens of a prompt."""
        return self.checkpoint.context

    def ids(self, *parts: str) -> TokenList:
        """Return the token ids of parts that are encoded separately, special tokens recognised."""
        joined: TokenList = []
        for part in parts:
            encoded = self.tokenizer.encode_texts([part], prompt="", max_tokens=self.context, is_query=True)
            joined += encoded.token_ids[0][:-1].tolist()
        return joined

    @property
    def end_of_text(self) -> int:
        """Id of `<|endoftext|>`."""
        return self.tokenizer.end_of_text

    def states(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Return the final hidden state of each sequence's last token, float32 (n, hidden_size)."""
        words = EmbeddingWords("", "", is_query=False)
        prompts = [Prompt(np.array(ids, dtype=np.int32), words, i) for i, ids in enumerate(sequences)]
        return self._backend.run(prompts).values

    def heads(self) -> dict[str, Floats]:
        """Return the directions on which right and faulty servers may project a state.

        Returns:
            Name of the fault, "" for the right direction -> float32, shape (k, hidden_size). Faulty directions
            are computed from the vocabulary's rows. If the right one is not (the head was trained, or converted
            from a model with untied embeddings), they are left out.
        """
        assert self._yes_minus_no is not None, "embedding models have no head"
        found = {"": self._yes_minus_no[None]}
        pairs = [(prompts.YES, prompts.NO), *_OTHER_ANSWERS]
        ids = {word: self.ids(word) for pair in pairs for word in pair}
        rows = _head_rows(self.checkpoint.folder, sorted({i[0] for i in ids.values() if len(i) == 1}))
        if rows is None or not _is_of_rows(found[""][0], rows[ids[prompts.YES][0]], rows[ids[prompts.NO][0]]):
            return found
        usable = [
            rows[ids[yes][0]] - rows[ids[no][0]]
            for yes, no in _OTHER_ANSWERS
            if len(ids[yes]) == len(ids[no]) == 1
        ]
        return {
            **found,
            "wrong-answer-tokens": np.stack(usable),
            "one-answer-token": rows[ids[prompts.YES][0]][None],
        }

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unit(rows: Floats) -> Floats:
    """Scale rows to norm 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return scaled


def _is_of_rows(yes_minus_no: Floats, yes: Floats, no: Floats) -> bool:
    """Whether a direction is the difference of two rows, up to rounding to bfloat16."""
    difference = float(np.linalg.norm(yes_minus_no - (yes - no)))
    return difference <= _ROUNDING * float(np.linalg.norm(yes_minus_no))


def _head_rows(folder: Path, token_ids: list[int]) -> dict[int, Floats] | None:
    """Return rows by token id: the head's if its weights are stored, else the embedding's; else None."""
    from safetensors import safe_open

    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(str(path), framework="pt") as weights:
                if name in weights.keys():  # noqa: SIM118 - not a dict
                    rows = weights.get_slice(name)
                    return {i: rows[i : i + 1].float().numpy()[0] for i in token_ids}
    return None
