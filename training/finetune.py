"""Fine-tuning of a published pair on a user's own (query, passage) pairs, with LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen3_rag import Embedder
from qwen3_rag.errors import PromptTooLongError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION, resolve_instruction
from qwen3_rag.prompts import query_prompt
from qwen3_rag.roles import prompt_before
from qwen3_rag.tokenization import PromptTokenizer

from training import checkpoints
from training.embedder import EmbedderSettings, train_embedder
from training.negatives import mine
from training.pairs import Pair
from training.reranker import RerankerSettings, train_reranker


def finetune_embedder(
    model: str,
    pairs: Sequence[Pair],
    output: Path,
    settings: EmbedderSettings,
    *,
    instruction: str | None = None,
) -> None:
    """Fine-tune an embedding checkpoint and save it merged.

    Args:
        model: hub repository or folder.
        pairs: queries and the passages that answer them.
        output: folder for the checkpoint; `qwen3_rag.Embedder(output)` loads it, query prompt included.
        settings: hyper-parameters.
        instruction: task sentence or preset that queries will carry; None for the query prompt that the
            start was saved with, or else the published default.
    """
    own = checkpoints.find(model, "embedding").query_prompt if instruction is None else None
    train_embedder(model, pairs, output, settings, prompt=own or query_prompt(_sentence(instruction)))


def finetune_reranker(
    model: str,
    embedder: str,
    pairs: Sequence[Pair],
    output: Path,
    settings: RerankerSettings,
    *,
    negatives: int = 7,
    instruction: str | None = None,
) -> None:
    """Fine-tune a reranking checkpoint on negatives mined with an embedder, and save it merged.

    Args:
        model: hub repository or folder.
        embedder: the model whose results are to be reranked, preferably the fine-tuned one.
        pairs: queries and the passages that answer them; their passages are what is searched.
        output: folder for the checkpoint; `qwen3_rag.Reranker(output)` loads it.
        settings: hyper-parameters.
        negatives: wrong passages of each query.
        instruction: task sentence or preset that queries will carry; None for the published default (and,
            while negatives are mined, the embedder's own). It is not saved: rerankers have no place for it.

    Raises:
        PromptTooLongError: a query leaves no room within `max_tokens`, for the reranker or for the embedder.
            The message names its pair; nothing was computed.
    """
    _check_queries(model, embedder, pairs, max_tokens=settings.max_tokens, instruction=instruction)
    with Embedder(embedder, instruction=instruction, max_tokens=settings.max_tokens) as retriever:
        candidates = mine(retriever, pairs, negatives=negatives, seed=settings.seed)
    sentence = _sentence(instruction)
    train_reranker(model, candidates, output, settings, instruct=lambda _: sentence)


def _check_queries(
    model: str, embedder: str, pairs: Sequence[Pair], *, max_tokens: int, instruction: str | None
) -> None:
    """Find a query that is too long, and never cut, before hours of training meet it."""
    scoring = PromptTokenizer.from_folder(checkpoints.find(model, "reranking").folder)
    start = checkpoints.find(embedder, "embedding")
    searching = PromptTokenizer.from_folder(start.folder)
    prompt = prompt_before(start, "query", None if instruction is None else _sentence(instruction))
    for query in dict.fromkeys(pair.query for pair in pairs):
        try:
            scoring.encode_pairs([(query, "")], instruction=_sentence(instruction), max_tokens=max_tokens)
            searching.encode_texts([query], prompt=prompt, max_tokens=max_tokens, is_query=True)
        except PromptTooLongError as error:
            number = next(i for i, pair in enumerate(pairs, 1) if pair.query == query)
            raise PromptTooLongError(f"pair {number}, whose query is {query!r:.60}: {error}") from error


def _sentence(instruction: str | None) -> str:
    return DEFAULT_INSTRUCTION if instruction is None else resolve_instruction(instruction)
