"""`Qwen3TextEmbedder`: queries to vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from haystack import component
from haystack_integrations.components.embedders.qwen3_rag.base import CoreComponent, Device
from haystack_integrations.components.embedders.qwen3_rag.documents import check_text, usage_meta

from qwen3_rag.embedder import Embedder, Embeddings
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.settings import DType, Hub


@component
class Qwen3TextEmbedder(CoreComponent):
    """Turns a query into a vector with a Qwen3-Embedding model, to search for documents that answer it.

    The query is read under the instruction that the model expects.
    """

    core_class = Embedder
    ready = "embedder"
    embedder: Embedder
    """The `Embedder` in use."""

    dimensions: int | None

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_EMBEDDING_MODEL,
        backend: str = "transformers",
        instruction: str | None = None,
        dimensions: int | None = None,
        max_tokens: int = 8192,
        device: Device = None,
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
        embedder: Embedder | None = None,
    ) -> None:
        """Make an embedder of queries, to stand before an embedding retriever.

        Weights are loaded on first use or by `warm_up`, once per process for components of equal settings: one
        `Qwen3DocumentEmbedder` beside it costs no memory.

        Args:
            model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
            backend: what runs the model; `qwen3-rag plugins` lists the names.
            instruction: task sentence for queries, or a preset's name. None takes the checkpoint's own saved
                query prompt, or else the published default.
            dimensions: length of vectors, 32 to the model's hidden size; None for all. Use the same as for
                the documents.
            max_tokens: longest prompt; a query that does not fit is an error, it is never cut.
            device: name of a torch device, several of them, or Haystack's `ComponentDevice`; None takes the
                best there is.
            dtype: "auto" is bfloat16 where the hardware computes it, else float32.
            revision: branch, tag or commit of the hub repository.
            hub: "huggingface" or "modelscope".
            parse_special_tokens: recognise `<|im_end|>` and the like inside your texts. Leave it False for text
                that you did not write yourself.
            token_budget: most tokens of one batch; None derives it from free memory.
            share_prefixes: compute the common prefixes of prompts once.
            timeout: most seconds that a run may take, loading included; None for no limit.
            max_wait_ms: milliseconds that a batch which is not full waits for other calls to join it.
            max_queued: calls, or pieces of up to 512 texts, that may wait or run; further ones wait for
                room.
            model_kwargs: further arguments for the backend's loader. The remote backend's `api_key` is a
                Haystack `Secret`; no other backend looks for one.
            embedder: a ready `qwen3_rag.Embedder` to use instead of making one; excludes the arguments above,
                and is never closed by this component.

        Raises:
            ConfigurationError: an argument is out of range, or stands beside `embedder`.
            TypeError: an argument is of a wrong type.
        """
        self._start(locals())

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Embed one query.

        Args:
            text: the query; reaches the tokenizer unchanged, after the instruction.

        Returns:
            `embedding`, floats of L2 norm 1, and `meta` with `model` and `usage`.

        Raises:
            TypeError: `text` is not a string.
            PromptTooLongError: instruction and query do not fit into `max_tokens`.
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN.
        """
        return _response(self.model, self.embedder.embed(_request(text), role="query"))

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` without blocking the event loop; concurrent calls share batches.

        Args:
            text: as `run`.
        """
        return _response(self.model, await self.embedder.aembed(_request(text), role="query"))


def _request(text: str) -> list[str]:
    check_text("text", text, "for documents use Qwen3DocumentEmbedder")
    return [text]


def _response(model: str, result: Embeddings) -> dict[str, Any]:
    return {"embedding": result.vectors[0].tolist(), "meta": usage_meta(model, result.usage)}
