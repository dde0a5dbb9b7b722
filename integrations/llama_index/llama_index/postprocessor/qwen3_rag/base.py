"""`Reranker` as a LlamaIndex node postprocessor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, cast

from llama_index.core.bridge.pydantic import Field, field_validator
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_rag.options import CoreOptions
from llama_index.postprocessor.qwen3_rag.nodes import rescored
from pydantic.json_schema import SkipJsonSchema

from qwen3_rag.component import Component
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.pydantic_adapter import ModelName
from qwen3_rag.ranking import Ranked
from qwen3_rag.reranker import Reranker

dispatcher = get_dispatcher(__name__)


class Qwen3Rerank(CoreOptions, BaseNodePostprocessor):
    """Qwen3-Reranker in LlamaIndex: nodes best first, scored with P(yes) in [0, 1].

    Nodes given are never changed: results are copies, with metadata, relationships and embedding of
    their own. Equal scores keep the order of the input. A node without text is scored as an empty
    document, not dropped. Weights are loaded on first use, once per process for equal settings. The
    async methods wait without blocking the event loop, and concurrent calls share batches.

    Args:
        model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
        top_n: most nodes to return; 0 returns none without running the model, None returns all.
        metadata_mode: which metadata stands before a node's text; by default what is embedded.
        keep_retrieval_score: store the score a node came with as `retrieval_score` in its
            metadata, excluded from what embedding models, rerankers and LLMs are shown.
        backend: what runs the model; `qwen3-rag plugins` lists the names.
        instruction: task sentence, or a preset's name. None takes the published default.
        max_tokens: longest prompt, template included; longer documents are cut at their end,
            counted and warned of.
        device: "cuda", "cuda:1", "mps" or "cpu", or a list of devices, each of which then runs the
            model in a process of its own; None takes the best device there is.
        dtype: "auto" is bfloat16 where the hardware computes it, else float32.
        revision: branch, tag or commit of the hub repository.
        hub: "huggingface" or "modelscope".
        parse_special_tokens: recognise `<|im_end|>` and the like inside your texts. Leave it False
            for text that you did not write yourself.
        token_budget: most tokens of one batch; None derives it from free memory.
        share_prefixes: compute template, instruction and query once for all nodes.
        timeout: most seconds that a call may take, loading included; then it raises
            DeadlineExceededError. None for no limit.
        max_wait_ms: how long a batch that is not full waits for other calls to join it. At 0 calls
            are merged that came while the device was busy.
        max_queued: calls (or pieces of up to 512 texts) that may wait or run in the engine; further ones
            wait until there is room.
        model_kwargs: further arguments for the backend's loader. Secrets in it are left out of
            `to_dict` and JSON, and all of it out of `repr`.
        reranker: a ready `Reranker` instead of all options of the core; `close` leaves it open.
            The attribute holds the `Reranker` in use, given or not.
        callback_manager: receives RERANKING events; None for no one.

    Raises:
        ConfigurationError: an option is out of range, or contradicts `reranker`.
        pydantic.ValidationError: an option has the wrong type. Both are ValueErrors.
    """

    core_class: ClassVar[type[Component]] = Reranker
    ready: ClassVar[str] = "reranker"
    twins: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"_postprocess_nodes": "_apostprocess_nodes", "postprocess_nodes": "apostprocess_nodes"}
    )

    model: ModelName = Field(default=DEFAULT_RERANKING_MODEL, frozen=True)
    top_n: int | None = Field(default=2, ge=0)
    metadata_mode: MetadataMode = MetadataMode.EMBED
    keep_retrieval_score: bool = False
    reranker: SkipJsonSchema[Reranker] = Field(  # never None once made
        default=cast("Reranker", None), exclude=True, repr=False, frozen=True
    )

    @field_validator("callback_manager", mode="before")
    @classmethod
    def _with_callbacks(cls, callback_manager: CallbackManager | None) -> CallbackManager:
        # As the framework's embedding models do; its postprocessors let None through.
        return CallbackManager([]) if callback_manager is None else callback_manager

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialised forms carry."""
        return "Qwen3Rerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)  # what their owner does to theirs meanwhile is not seen
        with self._announced(nodes, query_bundle) as best:
            query, texts = self._question(nodes, query_bundle)
            best += self._results(nodes, self.reranker.rerank(query, texts, top_k=self.top_n))
        return best

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        with self._announced(nodes, query_bundle) as best:
            query, texts = self._question(nodes, query_bundle)
            best += self._results(nodes, await self.reranker.arerank(query, texts, top_k=self.top_n))
        return best

    @contextmanager
    def _announced(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[list[NodeWithScore]]:
        """Send one start and one end event, whatever happens between; yields the list of results to fill."""
        best: list[NodeWithScore] = []
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: None if query_bundle is None else query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield best
                event.on_end(payload={EventPayload.NODES: best})
        except BaseException as error:  # a cancelled task's too: its trace must end
            dispatcher.event(ExceptionEvent(exception=error))
            raise
        finally:
            dispatcher.event(ReRankEndEvent(nodes=best))

    def _question(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> tuple[str, list[str]]:
        """Return the query and the texts to score."""
        if query_bundle is None:
            raise ValueError(
                "Qwen3Rerank scores nodes for a query and got none; pass query_str= or query_bundle= to "
                "postprocess_nodes"
            )
        return query_bundle.query_str, [node.node.get_content(self.metadata_mode) for node in nodes]

    def _results(self, nodes: list[NodeWithScore], ranking: list[Ranked]) -> list[NodeWithScore]:
        keep = self.keep_retrieval_score
        return [rescored(nodes[r.index], r.score, keep_retrieval_score=keep) for r in ranking]
