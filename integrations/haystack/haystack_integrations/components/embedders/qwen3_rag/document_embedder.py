"""`Qwen3DocumentEmbedder`: documents to vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from haystack import Document, component
from haystack_integrations.components.embedders.qwen3_rag.base import CoreComponent, Device
from haystack_integrations.components.embedders.qwen3_rag.documents import (
    check_meta_fields,
    check_separator,
    document_texts,
    own_documents,
    usage_meta,
)

from qwen3_rag.conversion import convert_off_loop
from qwen3_rag.embedder import Embedder, Embeddings
from qwen3_rag.inputs import as_bool
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.settings import DType, Hub


@component
class Qwen3DocumentEmbedder(CoreComponent):
    """Gives each document a vector with a Qwen3-Embedding model, by which a query can find it.

    Documents are embedded as they are, without an instruction.
    """

    core_class = Embedder
    ready = "embedder"
    embedder: Embedder
    """The `Embedder` in use."""

    dimensions: int | None
    meta_fields_to_embed: list[str]
    embedding_separator: str
    progress_bar: bool

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
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        progress_bar: bool = True,
    ) -> None:
        """Make an embedder of documents, to stand before a `DocumentWriter`.

        All documents of a run go to the model in one call, which makes batches by tokens. Weights are loaded on
        first use or by `warm_up`, once per process for components of equal settings.

        Args:
            model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
            backend: what runs the model; `qwen3-rag plugins` lists the names.
            instruction: of no effect on documents; taken so that the options of a `Qwen3TextEmbedder` fit here
                too.
            dimensions: length of vectors, 32 to the model's hidden size; None for all.
            max_tokens: longest prompt; longer documents are cut at their end, counted and warned of.
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
            meta_fields_to_embed: meta values to put before the content. One that is missing or None is left
                out.
            embedding_separator: stands between meta values and content.
            progress_bar: show a progress bar on standard error.

        Raises:
            ConfigurationError: an argument is out of range, or stands beside `embedder`.
            TypeError: an argument is of a wrong type.
        """
        meta_fields_to_embed = check_meta_fields(meta_fields_to_embed)
        check_separator(embedding_separator)
        progress_bar = as_bool("progress_bar", progress_bar)
        self._start(locals())

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents.

        Args:
            documents: any number of documents; never changed. One without content and without chosen meta
                values is embedded as the empty text.

        Returns:
            `documents`, copies in the same order with `embedding` set to floats of L2 norm 1, and
            `meta` with `model` and `usage`.

        Raises:
            TypeError: `documents` is not a list of documents, or an assigned attribute of a wrong type.
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN for a document.
            OutOfMemoryError: a document alone does not fit into memory.
        """
        documents = own_documents(documents)
        texts, progress = self._texts(documents), as_bool("progress_bar", self.progress_bar)
        result = self.embedder.embed(texts, role="document", progress=progress)
        return _response(self.model, documents, result)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run` without blocking the event loop; concurrent calls share batches.

        Args:
            documents: as `run`.
        """
        documents = own_documents(documents)
        texts, progress = self._texts(documents), as_bool("progress_bar", self.progress_bar)
        result = await self.embedder.aembed(texts, role="document", progress=progress)
        return await convert_off_loop(partial(_response, self.model, documents, result), result.vectors.size)

    def _texts(self, documents: Sequence[Document]) -> list[str]:
        return document_texts(documents, self.meta_fields_to_embed, self.embedding_separator)


def _response(model: str, documents: Sequence[Document], result: Embeddings) -> dict[str, Any]:
    # dataclasses.replace alone would leave copy and original with one meta dictionary.
    embedded = [
        replace(document, embedding=vector.tolist(), meta=dict(document.meta))
        for document, vector in zip(documents, result.vectors, strict=True)
    ]
    return {"documents": embedded, "meta": usage_meta(model, result.usage)}
