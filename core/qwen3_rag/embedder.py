"""Texts to vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.inputs import as_texts
from qwen3_rag.instructions import resolve_instruction
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.opening import Source
from qwen3_rag.roles import Role, prompt_before
from qwen3_rag.settings import DType, Hub
from qwen3_rag.tokens import Prompts
from qwen3_rag.usage import Usage
from qwen3_rag.vectors import (
    Precision,
    as_rows,
    check_precision,
    check_range_columns,
    checked_ranges,
    convert_precision,
    cut_and_normalise,
    parse_dimensions,
    resolve_dimensions,
    warn_if_few_vectors,
)
from qwen3_rag.work import Bind, Work


class Embeddings(NamedTuple):
    """Vectors and what they cost.

    Attributes:
        vectors: shape (n, dimensions), one row per text; float32 unless another precision was asked for.
        usage: tokens and texts of the call.
    """

    vectors: NDArray[Any]
    usage: Usage


class Embedder(Component):
    """Embeds queries and documents with a Qwen3-Embedding model.

    The vector of a text is the final hidden state of its closing `<|endoftext|>` token, cut to
    `dimensions`, then scaled to L2 norm 1. Queries carry an instruction, documents do not.
    Weights are loaded on first use and shared with every `Embedder` of equal settings in the
    process. All methods may be called from any thread; async ones need asyncio.

    Args:
        model: hub repository or local folder; "demo" is a tiny model inside this package, for trying out. A
            path (`os.PathLike`) is a folder always, and kept as a string.
        backend: what runs the model; `qwen3-rag plugins` lists the names.
        instruction: task sentence for queries, or a preset's name. None takes the checkpoint's
            own saved query prompt, or else the published default.
        dimensions: length of vectors, 32 to the model's hidden size; None for all.
        max_tokens: longest prompt; longer documents are cut at their end, counted and warned of.
        device: "cuda", "cuda:1", "mps" or "cpu", or a list of devices, each of which then runs the
            model in a process of its own; None takes the best device there is.
        dtype: "auto" is bfloat16 where the hardware computes it, else float32.
        revision: branch, tag or commit of the hub repository.
        hub: "huggingface" or "modelscope".
        parse_special_tokens: recognise `<|im_end|>` and the like inside your texts, as the published
            snippets do. Leave it False for text that you did not write yourself.
        token_budget: most tokens of one round of the model; None derives it from free memory.
        share_prefixes: compute the common prefixes of prompts once.
        timeout: most seconds that a call may take, loading included; then it raises
            DeadlineExceededError and what is not computed yet is dropped. None for no limit.
        max_wait_ms: how long a batch that is not full waits for other calls to join it. At 0 calls
            are merged that came while the device was busy.
        max_queued: calls (or pieces of up to 512 texts) that may wait or run in the engine; further ones
            wait until there is room.
        model_kwargs: further arguments for the backend's loader, for example
            `{"quantization_config": ...}`.

    Raises:
        ConfigurationError: an argument is out of range.
        TypeError: an argument is of a wrong type.

    Every method that embeds raises EngineClosedError after `close`, ForkedProcessError in a child process that
    was forked after loading, and WorkerDiedError if the process that runs a device died.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_EMBEDDING_MODEL,
        *,
        backend: str = "transformers",
        instruction: str | None = None,
        dimensions: int | None = None,
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
        super().__init__("embedding", locals())
        self._instruction = None if instruction is None else resolve_instruction(instruction)
        self._dimensions = parse_dimensions(self._arguments["dimensions"])

    @property
    def dimensions(self) -> int:
        """Length of the vectors. Reads the checkpoint's config, not its weights.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            ConfigurationError: `dimensions` was given, and is more than the model's hidden size.
            DeadlineExceededError: reading it took longer than `timeout`.
        """
        source = self._open(self._timeout)
        return resolve_dimensions(self._dimensions, source.checkpoint.hidden_size)

    def embed_documents(
        self,
        texts: Iterable[str],
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """Embed documents as they are, without an instruction.

        Args:
            texts: any number of strings, the empty one included, in whatever can be listed (a generator, a
                pandas column); never changed. They are listed first: changing yours later has no effect.
            dimensions: overrides the constructor's for this call.
            precision: element type; see `qwen3_rag.quantize`.
            ranges: for int8 and uint8; see `qwen3_rag.quantize`.
            progress: show a progress bar on standard error.

        Returns:
            Shape (n, dimensions), float32 unless `precision` says otherwise, rows of L2 norm 1.

        Raises:
            TypeError: a text is not a string (the message names its index).
            ConfigurationError: `dimensions`, `precision` or `ranges` is out of range.
            CheckpointError: the model cannot be loaded.
            NonFiniteOutputError: the model returned NaN for a text.
            OutOfMemoryError: a text alone does not fit into memory.
            DeadlineExceededError: it took longer than `timeout`.
        """
        return self.embed(
            texts, role="document", dimensions=dimensions, precision=precision, ranges=ranges, progress=progress
        ).vectors

    def embed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """Embed queries, each with the instruction.

        Args:
            queries: any number of strings.
            instruction: task sentence or preset for this call; None takes the constructor's.
            dimensions, precision, ranges, progress: as `embed_documents`.

        Returns:
            As `embed_documents`.

        Raises:
            PromptTooLongError: a query does not fit into `max_tokens`; queries are never cut. Otherwise as
                `embed_documents`.
        """
        return self.embed(
            queries,
            role="query",
            instruction=instruction,
            dimensions=dimensions,
            precision=precision,
            ranges=ranges,
            progress=progress,
        ).vectors

    def embed(
        self,
        texts: Iterable[str],
        *,
        role: Role,
        instruction: str | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> Embeddings:
        """Embed texts as queries or as documents and say what it cost.

        Args:
            role: "query" puts the instruction before each text, "document" leaves texts alone.
            texts, instruction, dimensions, precision, ranges, progress: as `embed_queries`.

        Returns:
            Vectors, as `embed_documents` returns them, and their cost.

        Raises:
            ConfigurationError: `role` is unknown, or `instruction` is given for documents. Otherwise as
                `embed_queries`.
        """
        texts = as_texts(texts, "text")
        bind = self._work(len(texts), role, instruction, dimensions, precision, ranges)
        outcome = self._run(texts, bind, progress=progress)
        return Embeddings(outcome.values, outcome.usage)

    async def aembed_documents(
        self,
        texts: Iterable[str],
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """`embed_documents` for event loops; concurrent calls share batches."""
        result = await self.aembed(
            texts, role="document", dimensions=dimensions, precision=precision, ranges=ranges, progress=progress
        )
        return result.vectors

    async def aembed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """`embed_queries` for event loops; concurrent calls share batches."""
        result = await self.aembed(
            queries,
            role="query",
            instruction=instruction,
            dimensions=dimensions,
            precision=precision,
            ranges=ranges,
            progress=progress,
        )
        return result.vectors

    async def aembed(
        self,
        texts: Iterable[str],
        *,
        role: Role,
        instruction: str | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        ranges: NDArray[np.float32] | None = None,
        progress: bool = False,
    ) -> Embeddings:
        """`embed` for event loops. Cancelling it drops what is not computed yet."""
        texts = as_texts(texts, "text")
        bind = self._work(len(texts), role, instruction, dimensions, precision, ranges)
        outcome = await self._arun(texts, bind, progress=progress)
        return Embeddings(outcome.values, outcome.usage)

    def _work(
        self,
        count: int,
        role: Role,
        instruction: str | None,
        dimensions: int | None,
        precision: Precision,
        ranges: NDArray[np.float32] | None,
    ) -> Bind[str]:
        """Check what can be checked at once; the rest needs the checkpoint."""
        check_precision(precision)
        ranges = checked_ranges(ranges)
        warn_if_few_vectors(count, precision, ranges)
        if role not in ("query", "document"):
            raise ConfigurationError(f'role must be "query" or "document", got {role!r}')
        if role == "document" and instruction is not None:
            raise ConfigurationError("documents take no instruction; Qwen3 puts it before queries only")
        chosen = self._instruction if instruction is None else resolve_instruction(instruction)
        asked_length = self._dimensions if dimensions is None else parse_dimensions(dimensions)

        def bind(source: Source) -> Work[str]:
            hidden_size = source.checkpoint.hidden_size
            length = resolve_dimensions(asked_length, hidden_size)
            check_range_columns(ranges, length)
            prompt = prompt_before(source.checkpoint, role, chosen)

            def encode(chunk: Sequence[str], first: int) -> Prompts:
                return source.tokenizer.encode_texts(
                    chunk, prompt=prompt, max_tokens=self._max_tokens, is_query=role == "query", first=first
                )

            return Work(
                encode,
                lambda values: cut_and_normalise(as_rows(values, hidden_size), length),
                lambda vectors: convert_precision(vectors, precision, ranges),
            )

        return bind
