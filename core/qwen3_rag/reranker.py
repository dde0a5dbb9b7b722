"""Query and document to P(yes)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.component import Component
from qwen3_rag.inputs import as_pairs, as_str, as_texts
from qwen3_rag.instructions import DEFAULT_INSTRUCTION, resolve_instruction
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.opening import Source
from qwen3_rag.ranking import Ranked, check_top_k, rank, yes_probability
from qwen3_rag.settings import DType, Hub
from qwen3_rag.tokens import Prompts
from qwen3_rag.usage import Usage
from qwen3_rag.work import Bind, Work


class Scores(NamedTuple):
    """Scores and what they cost.

    Attributes:
        scores: float32, shape (n,), P(yes) in [0, 1].
        usage: tokens and pairs of the call.
    """

    scores: NDArray[np.float32]
    usage: Usage


class Reranker(Component):
    """Scores documents for a query with a Qwen3-Reranker model.

    A score is the model's probability of answering "yes" rather than "no" to whether the document
    meets the query under the instruction: sigmoid(logit_yes - logit_no) at the last token.
    Weights are loaded on first use and shared with every `Reranker` of equal settings in the
    process. All methods may be called from any thread; async ones need asyncio.

    Args:
        model: hub repository or local folder ("demo" is a tiny model inside this package, for trying out);
            causal checkpoints and their conversions to sequence classification are both understood.
            A path (`os.PathLike`) is a folder always, and kept as a string.
        backend: what runs the model; `qwen3-rag plugins` lists the names.
        instruction: task sentence, or a preset's name. None takes the published default.
        max_tokens: longest prompt, template included; longer documents are cut at their end,
            counted and warned of.
        device: "cuda", "cuda:1", "mps" or "cpu", or a list of devices, each of which then runs the
            model in a process of its own; None takes the best device there is.
        dtype: "auto" is bfloat16 where the hardware computes it, else float32.
        revision: branch, tag or commit of the hub repository.
        hub: "huggingface" or "modelscope".
        parse_special_tokens: recognise `<|im_end|>` and the like inside your texts, as the published
            snippets do. Leave it False for text that you did not write yourself: such a text could
            close its own turn and answer for the model.
        token_budget: most tokens of one round of the model; None derives it from free memory.
        share_prefixes: compute template, instruction and query once for all documents of a query.
        timeout: most seconds that a call may take, loading included; then it raises
            DeadlineExceededError and what is not computed yet is dropped. None for no limit.
        max_wait_ms: how long a batch that is not full waits for other calls to join it. At 0 calls
            are merged that came while the device was busy.
        max_queued: calls (or pieces of up to 512 texts) that may wait or run in the engine; further ones
            wait until there is room.
        model_kwargs: further arguments for the backend's loader.

    Raises:
        ConfigurationError: an argument is out of range.
        TypeError: an argument is of a wrong type.

    Every method that scores raises EngineClosedError after `close`, ForkedProcessError in a child process that
    was forked after loading, and WorkerDiedError if the process that runs a device died. For no documents none
    of them does: there is nothing to score.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_RERANKING_MODEL,
        *,
        backend: str = "transformers",
        instruction: str | None = None,
        max_tokens: int = 8192,
        device: str | Sequence[str] | None = None,
        dtype: DType = "auto",
        revision: str | None = None,
        hub: Hub = "huggingface",
        parse_special_tokens: bool = False,
        token_budget: int | None = None,
        share_prefixes: bool = True,
        timeout: float | None = None,
        max_wait_ms: float = 0.0,
        max_queued: int = 1024,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__("reranking", locals())
        self._instruction = resolve_instruction(DEFAULT_INSTRUCTION if instruction is None else instruction)

    def score(
        self,
        query: str,
        documents: Iterable[str],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Score documents for one query.

        Args:
            query: the question or search text; never cut.
            documents: any number of strings, in whatever can be listed (a generator, a pandas column); never
                changed. They are listed first: a place is one in that list, and changing yours later has no
                effect.
            instruction: task sentence or preset for this call; None takes the constructor's.
            progress: show a progress bar on standard error.

        Returns:
            float32, shape (n,), P(yes) in [0, 1], in the order given.

        Raises:
            TypeError: a text is not a string (the message names its index).
            PromptTooLongError: template, instruction and query leave no room for a document.
            CheckpointError: the model cannot be loaded.
            NonFiniteOutputError: the model returned NaN for a pair.
            OutOfMemoryError: a pair alone does not fit into memory.
            DeadlineExceededError: it took longer than `timeout`.
        """
        return self.evaluate(_pairs(query, documents), instruction=instruction, progress=progress).scores

    def score_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Score (query, document) pairs; pairs of one query share its computation wherever they stand.

        Args:
            pairs: tuples or lists of two strings, or rows of an array of shape (n, 2); otherwise as
                `documents` of `score`.
            instruction, progress: as `score`.

        Returns, raises:
            As `score`.
        """
        return self.evaluate(pairs, instruction=instruction, progress=progress).scores

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        progress: bool = False,
    ) -> list[Ranked]:
        """Return the documents best first, equal scores in input order.

        Args:
            top_k: most documents to return, 0 or more; None for all. Nothing is opened or computed for 0.
            query, documents, instruction, progress: as `score`.

        Returns:
            At most `top_k` documents, each with its index in `documents`, its text and its score.

        Raises:
            ConfigurationError: `top_k` is negative.
            TypeError: `top_k` is no whole number. Otherwise as `score`.
        """
        top_k = check_top_k(top_k)
        wanted = [] if top_k == 0 else as_texts(documents, "document")
        scores = self.score(query, wanted, instruction=instruction, progress=progress)
        return rank(scores, wanted, top_k)

    def evaluate(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> Scores:
        """Score (query, document) pairs and say what it cost.

        Args:
            pairs, instruction, progress: as `score_pairs`.

        Returns, raises:
            As `score_pairs`; with the scores comes their cost. No pairs have no scores, whatever the model:
            nothing is opened, loaded or computed for them.
        """
        listed, work = as_pairs(pairs), self._work(instruction)
        if not listed:
            return _no_scores()
        outcome = self._run(listed, work, progress=progress)
        return Scores(outcome.values, outcome.usage)

    async def ascore(
        self,
        query: str,
        documents: Iterable[str],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """`score` for event loops; concurrent calls share batches."""
        result = await self.aevaluate(_pairs(query, documents), instruction=instruction, progress=progress)
        return result.scores

    async def ascore_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """`score_pairs` for event loops; concurrent calls share batches."""
        return (await self.aevaluate(pairs, instruction=instruction, progress=progress)).scores

    async def arerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        progress: bool = False,
    ) -> list[Ranked]:
        """`rerank` for event loops; concurrent calls share batches."""
        top_k = check_top_k(top_k)
        wanted = [] if top_k == 0 else as_texts(documents, "document")
        scores = await self.ascore(query, wanted, instruction=instruction, progress=progress)
        return rank(scores, wanted, top_k)

    async def aevaluate(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        progress: bool = False,
    ) -> Scores:
        """`evaluate` for event loops. Cancelling it drops what is not computed yet."""
        listed, work = as_pairs(pairs), self._work(instruction)
        if not listed:
            return _no_scores()
        outcome = await self._arun(listed, work, progress=progress)
        return Scores(outcome.values, outcome.usage)

    def _work(self, instruction: str | None) -> Bind[tuple[str, str]]:
        chosen = self._instruction if instruction is None else resolve_instruction(instruction)

        def bind(source: Source) -> Work[tuple[str, str]]:
            def encode(chunk: Sequence[tuple[str, str]], first: int) -> Prompts:
                return source.tokenizer.encode_pairs(
                    chunk, instruction=chosen, max_tokens=self._max_tokens, first=first
                )

            return Work(encode, yes_probability, lambda scores: scores)

        return bind


def _no_scores() -> Scores:
    return Scores(np.zeros(0, np.float32), Usage())


def _pairs(query: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    if not isinstance(query, str):
        raise TypeError(f"query must be a str, got {type(query).__name__}")
    query = as_str(query)
    return [(query, document) for document in as_texts(documents, "document")]
