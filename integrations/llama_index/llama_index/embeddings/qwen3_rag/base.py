"""`Embedder` as a LlamaIndex embedding model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding, mean_agg
from llama_index.core.bridge.pydantic import Field
from llama_index.core.storage.kvstore.types import BaseKVStore
from llama_index.embeddings.qwen3_rag.cache import KeyedCache, looking_up_a_query
from llama_index.embeddings.qwen3_rag.options import CoreOptions
from pydantic.json_schema import SkipJsonSchema

from qwen3_rag.component import Component
from qwen3_rag.conversion import as_lists, convert_off_loop
from qwen3_rag.embedder import Embedder
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.progress import one_bar
from qwen3_rag.pydantic_adapter import ModelName

_MAX_BATCH: Final = 2048
"""The largest `embed_batch_size` that the framework allows; within it the core makes the batches."""

_MAX_THREADS: Final = 32
"""Queries of one aggregated embedding that are asked for at a time."""

Self = TypeVar("Self", bound="Qwen3Embedding")

# The overrides below are traced themselves; through the base's own spans each call would count twice.
_untraced_get = inspect.unwrap(BaseEmbedding.get_query_embedding)
_untraced_aget = inspect.unwrap(BaseEmbedding.aget_query_embedding)
_untraced_batch = inspect.unwrap(BaseEmbedding.get_text_embedding_batch)
_untraced_abatch = inspect.unwrap(BaseEmbedding.aget_text_embedding_batch)


class Qwen3Embedding(CoreOptions, BaseEmbedding):
    """Qwen3-Embedding in LlamaIndex: queries carry the instruction, documents do not.

    Weights are loaded on first use, once per process for equal settings. The async methods wait
    without blocking the event loop, and concurrent calls share batches.

    Args:
        model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
            `model_name`, the framework's name, means the same.
        backend: what runs the model; `qwen3-rag plugins` lists the names.
        instruction: task sentence for queries, or a preset's name. None takes the checkpoint's own
            saved query prompt, or else the published default.
        dimensions: length of vectors, 32 to the model's hidden size; None for all.
        max_tokens: longest prompt; longer documents are cut at their end, counted and warned of.
        device: "cuda", "cuda:1", "mps" or "cpu", or a list of devices, each of which then runs the
            model in a process of its own; None takes the best device there is.
        dtype: "auto" is bfloat16 where the hardware computes it, else float32.
        revision: branch, tag or commit of the hub repository.
        hub: "huggingface" or "modelscope".
        parse_special_tokens: recognise `<|im_end|>` and the like inside your texts.
        token_budget: most tokens of one batch; None derives it from free memory.
        share_prefixes: compute the common prefixes of prompts once.
        timeout: most seconds that a call may take, loading included; then it raises
            DeadlineExceededError. None for no limit.
        max_wait_ms: how long a batch that is not full waits for other calls to join it. At 0 calls
            are merged that came while the device was busy.
        max_queued: calls (or pieces of up to 512 texts) that may wait or run in the engine; further ones
            wait until there is room.
        model_kwargs: further arguments for the backend's loader. Secrets in it are left out of
            `to_dict` and JSON, and all of it out of `repr`.
        embedder: a ready `Embedder` instead of all options above; `close` leaves it open. The
            attribute holds the `Embedder` in use, given or not.
        embed_batch_size: texts that the framework hands over at a time, 1 to 2048. Leave it: the
            core decides what runs together, by tokens.
        num_workers: batches in flight at a time in `aget_text_embedding_batch`; None for all.
        embeddings_cache: a LlamaIndex key-value store for vectors. Queries and documents, models,
            dimensions and instructions have separate keys. The attribute is a view of it, and may be
            assigned.
        callback_manager: receives EMBEDDING events; `Settings` sets its own.
        rate_limiter: asked by the framework before each batch.

    Raises:
        ConfigurationError: an option is out of range, or contradicts `embedder` or `model_name`.
        pydantic.ValidationError: an option has the wrong type. Both are ValueErrors.
    """

    core_class: ClassVar[type[Component]] = Embedder
    ready: ClassVar[str] = "embedder"
    twins: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "_get_query_embedding": "_aget_query_embedding",
            "_get_text_embedding": "_aget_text_embedding",
            "_get_text_embeddings": "_aget_text_embeddings",
            "get_query_embedding": "aget_query_embedding",
            "get_text_embedding": "aget_text_embedding",
            "get_text_embedding_batch": "aget_text_embedding_batch",
            "get_agg_embedding_from_queries": "aget_agg_embedding_from_queries",
        }
    )

    # Serialised forms have the framework's name for it, `model_name`, and one name only, so that whoever
    # edits a saved configuration names one model.
    model: ModelName = Field(default=DEFAULT_EMBEDDING_MODEL, frozen=True, exclude=True)
    model_name: ModelName = Field(default=DEFAULT_EMBEDDING_MODEL, frozen=True)
    dimensions: int | None = Field(default=None, frozen=True)
    embedder: SkipJsonSchema[Embedder] = Field(  # never None once made
        default=cast("Embedder", None), exclude=True, repr=False, frozen=True
    )
    embed_batch_size: int = Field(default=_MAX_BATCH, gt=0, le=_MAX_BATCH)
    embeddings_cache: Any = Field(default=None, exclude=True, repr=False)

    if not TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            super().__init__(**_with_one_model_name(fields))

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a field; a cache is viewed through keys of this model's."""
        super().__setattr__(name, self._keyed(value) if name == "embeddings_cache" else value)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialised forms carry."""
        return "Qwen3Embedding"

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query with the instruction: `dimensions` floats of L2 norm 1."""
        with looking_up_a_query():
            embedding: Embedding = _untraced_get(self, query)
        return embedding

    async def aget_query_embedding(self, query: str) -> Embedding:
        """`get_query_embedding` for event loops."""
        with looking_up_a_query():
            embedding: Embedding = await _untraced_aget(self, query)
        return embedding

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed documents as they are: `dimensions` floats of L2 norm 1 for each, in order.

        Args:
            texts: any number of strings; never changed.
            show_progress: show a progress bar on standard error, moved by the core as texts are done.
            **kwargs: as the base class, which uses none.
        """
        with _progress(texts, show_progress):
            embeddings: list[Embedding] = _untraced_batch(self, texts, **kwargs)
        return embeddings

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """`get_text_embedding_batch` for event loops."""
        with _progress(texts, show_progress):
            embeddings: list[Embedding] = await _untraced_abatch(self, texts, **kwargs)
        return embeddings

    @classmethod
    def from_dict(cls: type[Self], data: dict[str, Any], **kwargs: Any) -> Self:
        """Return an adapter of the configuration that `to_dict` gave, which may have been edited.

        Args:
            data: never changed. `model`, which `to_dict` does not write, goes before `model_name`.
            **kwargs: fields to change.
        """
        data = {**data, **kwargs}
        if "model" in data:
            data.pop("model_name", None)
        made: Self = super().from_dict(data)
        return made

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Embed queries together and aggregate their vectors.

        Args:
            queries: at least one.
            agg_fn: list of vectors to one vector; None takes their mean.
        """
        # The core makes one batch of calls that run at the same time, and each query keeps its own event,
        # cache entry and span, for which it needs the caller's context.
        contexts = [copy_context() for _ in queries]
        with ThreadPoolExecutor(_MAX_THREADS, "qwen3-rag-queries") as threads:
            asked = threads.map(lambda c, query: c.run(self.get_query_embedding, query), contexts, queries)
        return (mean_agg if agg_fn is None else agg_fn)(list(asked))

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """`get_agg_embedding_from_queries` for event loops."""
        embeddings = await asyncio.gather(*map(self.aget_query_embedding, queries))
        return (mean_agg if agg_fn is None else agg_fn)(list(embeddings))

    def _get_query_embedding(self, query: str) -> Embedding:
        return as_lists(self.embedder.embed_queries([query]))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return as_lists(await self.embedder.aembed_queries([query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return as_lists(self.embedder.embed_documents(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors = await self.embedder.aembed_documents(texts)
        return await convert_off_loop(partial(as_lists, vectors), vectors.size)

    def _connect(self, given: Component | None) -> None:
        super()._connect(given)
        vars(self)["model_name"] = self.model
        vars(self)["embeddings_cache"] = self._keyed(self.embeddings_cache)

    def _copied(self: Self, update: Mapping[str, Any], memo: dict[int, Any] | None) -> Self:
        return super()._copied(_with_one_model_name(update), memo)

    def _keyed(self, store: Any) -> KeyedCache | None:
        """Return a view of a store under keys of this model's, whoever else's view it was before."""
        if store is None:
            return None
        if not isinstance(store, BaseKVStore):
            raise TypeError(f"embeddings_cache must be a BaseKVStore, got {type(store).__name__}")
        store = store.store if isinstance(store, KeyedCache) else store
        return KeyedCache(store, self.embedder.arguments)


def _progress(texts: Sequence[str], is_shown: bool) -> AbstractContextManager[None]:
    """Show how many texts are done. The framework's own bar moves once for each `embed_batch_size` of them."""
    return one_bar(len(texts), "Generating embeddings") if is_shown else nullcontext()


def _with_one_model_name(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with `model_name` under the core's name for it."""
    if "model_name" not in fields:
        return dict(fields)
    others = {name: value for name, value in fields.items() if name != "model_name"}
    model_name = fields["model_name"]
    if others.setdefault("model", model_name) != model_name:
        raise ConfigurationError(
            f"model={others['model']!r} and model_name={model_name!r} name two models; give one of them"
        )
    return others
