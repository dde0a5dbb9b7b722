"""What a LangChain adapter owes its users, beyond what langchain-tests asks of it.

Inherit a class, give its two properties and `hold`, and pytest checks the contract. Nothing here knows
Qwen3, so adapters of other vendors may be held to it as well::

    class TestMyReranker(DocumentCompressorContract):
        @property
        def compressor_class(self):
            return MyReranker

        @property
        def compressor_params(self):
            return {"model": "my-model"}

        def hold(self, adapter):
            return my_gate_in_front_of(adapter.client)  # see EventLoopContract.hold
"""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings

from qwen3_rag.testing.adapter import CONCURRENT_CALLS, AdapterContract

if TYPE_CHECKING:  # langchain-core before 1.2.19 has none
    from langchain_core.cross_encoders import BaseCrossEncoder

QUERY: Final = "How long does light take from the sun to the earth?"
TEXTS: Final = (
    "Light from the sun takes about eight minutes to reach the earth.",
    "The sun is a star.",
    "Bread is baked from flour,\nwater and salt.",
    "   The distance from the sun to the earth is one astronomical unit.",
    "",
)
"""Texts of different meanings; one is empty, one starts with spaces, one has a line break."""


class DocumentCompressorContract(AdapterContract):
    """For a `BaseDocumentCompressor` that reranks: `compressor_class` and `compressor_params`.

    Attributes:
        score_key: where the metadata of a returned document holds its score, a float.
        top_n: name of the parameter that limits how many documents come back; None is for all.
    """

    score_key: str = "relevance_score"
    top_n: str = "top_n"

    @property
    @abstractmethod
    def compressor_class(self) -> type[BaseDocumentCompressor]:
        """The class under test."""

    @property
    @abstractmethod
    def compressor_params(self) -> dict[str, Any]:
        """Its constructor's arguments, without the limit."""

    def _compressor(self, top_n: int | None = None) -> BaseDocumentCompressor:
        return self.compressor_class(**{**self.compressor_params, self.top_n: top_n})

    def _documents(self) -> list[Document]:
        return [
            Document(id=f"id-{i}", page_content=text, metadata={"place": i, "source": {"page": i}})
            for i, text in enumerate(TEXTS)
        ]

    def _scores(self, documents: Any) -> dict[str, float]:
        return {document.id: document.metadata[self.score_key] for document in documents}

    def test_documents_come_back_best_first_with_their_scores(self) -> None:
        scores = list(self._scores(self._compressor().compress_documents(self._documents(), QUERY)).values())
        assert len(scores) == len(TEXTS)
        assert all(isinstance(score, float) for score in scores)
        assert scores == sorted(scores, reverse=True)

    def test_ids_texts_and_metadata_are_kept(self) -> None:
        ranked = self._compressor().compress_documents(self._documents(), QUERY)
        for document in ranked:
            metadata = {key: value for key, value in document.metadata.items() if key != self.score_key}
            (given,) = [given for given in self._documents() if given.id == document.id]
            assert (document.page_content, metadata) == (given.page_content, given.metadata)
            assert type(document) is Document

    def test_given_documents_are_not_changed(self) -> None:
        documents = self._documents()
        given, objects = copy.deepcopy(documents), list(map(id, documents))
        ranked = self._compressor().compress_documents(documents, QUERY)
        assert documents == given
        assert list(map(id, documents)) == objects
        assert not {id(document) for document in ranked} & set(objects)
        ranked[0].metadata["added"] = True
        assert documents == given

    def test_equal_scores_keep_the_order_given(self) -> None:
        documents = [Document(id=str(i), page_content=TEXTS[i % 2]) for i in range(8)]
        ranked = [document.id for document in self._compressor().compress_documents(documents, QUERY)]
        assert ranked in (list("02461357"), list("13570246"))

    @pytest.mark.parametrize(("top_n", "count"), [(0, 0), (2, 2), (99, len(TEXTS)), (None, len(TEXTS))])
    def test_the_limit_keeps_the_best(self, top_n: int | None, count: int) -> None:
        every = self._scores(self._compressor().compress_documents(self._documents(), QUERY))
        kept = self._scores(self._compressor(top_n).compress_documents(self._documents(), QUERY))
        assert list(kept) == list(every)[:count]

    def test_no_documents_give_no_documents(self) -> None:
        compressor = self._compressor(2)
        assert list(compressor.compress_documents([], QUERY)) == []
        assert list(asyncio.run(compressor.acompress_documents([], QUERY))) == []

    def test_callbacks_are_accepted(self) -> None:
        with_callbacks = self._compressor().compress_documents(self._documents(), QUERY, callbacks=[])
        assert len(with_callbacks) == len(TEXTS)

    def test_async_gives_what_sync_gives(self) -> None:
        compressor = self._compressor(3)
        ranked = asyncio.run(compressor.acompress_documents(self._documents(), QUERY, callbacks=None))
        assert ranked == compressor.compress_documents(self._documents(), QUERY)

    def test_concurrent_async_calls_leave_the_event_loop_free(self) -> None:
        compressor = self._compressor()
        expected = self._scores(compressor.compress_documents(self._documents(), QUERY))
        call = partial(compressor.acompress_documents, self._documents(), QUERY)
        for ranked in self.check_loop_turns(compressor, call, CONCURRENT_CALLS):
            assert self._scores(ranked) == pytest.approx(expected, abs=self.tolerance)

    def test_copies_and_pickles_carry_the_configuration_only(self) -> None:
        documents = self._documents()
        self.check_copies(self._compressor(2), lambda c: self._scores(c.compress_documents(documents, QUERY)))


class CrossEncoderContract(AdapterContract):
    """For a `BaseCrossEncoder`: `cross_encoder_class` and `cross_encoder_params`.

    LangChain's interface has no async method. One called `ascore`, if there is one, is held to it too.
    """

    @property
    @abstractmethod
    def cross_encoder_class(self) -> type[BaseCrossEncoder]:
        """The class under test."""

    @property
    @abstractmethod
    def cross_encoder_params(self) -> dict[str, Any]:
        """Its constructor's arguments."""

    def _cross_encoder(self) -> BaseCrossEncoder:
        return self.cross_encoder_class(**self.cross_encoder_params)

    def test_each_pair_has_its_score_in_order(self) -> None:
        encoder = self._cross_encoder()
        pairs = [(query, text) for text in TEXTS for query in (QUERY, "How is bread made?")]
        scores = encoder.score(pairs)
        assert all(isinstance(score, float) for score in scores)
        assert scores == pytest.approx([encoder.score([pair])[0] for pair in pairs], abs=self.tolerance)

    def test_given_pairs_are_not_changed(self) -> None:
        pairs = [(QUERY, text) for text in TEXTS]
        given = list(pairs)
        self._cross_encoder().score(pairs)
        assert pairs == given

    def test_no_pairs_give_no_scores(self) -> None:
        assert self._cross_encoder().score([]) == []

    def test_async_gives_what_sync_gives(self) -> None:
        encoder, ascore = self._with_ascore()
        pairs = [(QUERY, text) for text in TEXTS]
        assert asyncio.run(ascore(pairs)) == encoder.score(pairs)
        assert asyncio.run(ascore([])) == []

    def test_concurrent_async_calls_leave_the_event_loop_free(self) -> None:
        encoder, ascore = self._with_ascore()
        pairs = [(QUERY, text) for text in TEXTS]
        expected = pytest.approx(encoder.score(pairs), abs=self.tolerance)
        scores = self.check_loop_turns(encoder, partial(ascore, pairs), CONCURRENT_CALLS)
        assert scores == [expected] * CONCURRENT_CALLS

    def _with_ascore(self) -> tuple[BaseCrossEncoder, Callable[[Any], Coroutine[Any, Any, list[float]]]]:
        encoder = self._cross_encoder()
        if not hasattr(encoder, "ascore"):
            pytest.skip("has no async method")
        return encoder, encoder.ascore

    def test_copies_and_pickles_carry_the_configuration_only(self) -> None:
        self.check_copies(self._cross_encoder(), lambda encoder: encoder.score([(QUERY, t) for t in TEXTS]))


class EmbeddingsContract(AdapterContract):
    """For `Embeddings`: `embeddings_class` and `embedding_model_params`, named as in langchain-tests.

    Attributes:
        queries_differ_from_documents: whether the model embeds a query otherwise than a document.
    """

    queries_differ_from_documents: bool = True

    @property
    @abstractmethod
    def embeddings_class(self) -> type[Embeddings]:
        """The class under test."""

    @property
    @abstractmethod
    def embedding_model_params(self) -> dict[str, Any]:
        """Its constructor's arguments."""

    def _embeddings(self) -> Embeddings:
        return self.embeddings_class(**self.embedding_model_params)

    def test_each_text_has_its_vector_in_order(self) -> None:
        embeddings = self._embeddings()
        together = embeddings.embed_documents(list(TEXTS))
        for text, vector in zip(TEXTS, together, strict=True):
            assert vector == pytest.approx(embeddings.embed_documents([text])[0], abs=self.tolerance)

    def test_given_texts_are_not_changed(self) -> None:
        texts = list(TEXTS)
        self._embeddings().embed_documents(texts)
        assert texts == list(TEXTS)

    def test_no_texts_give_no_vectors(self) -> None:
        embeddings = self._embeddings()
        assert embeddings.embed_documents([]) == []
        assert asyncio.run(embeddings.aembed_documents([])) == []

    def test_white_space_is_part_of_a_text(self) -> None:
        embeddings = self._embeddings()
        texts = ["flour and\nwater", "flour and water", "  flour and water"]
        for vectors in (embeddings.embed_documents(texts), [embeddings.embed_query(text) for text in texts]):
            assert vectors[0] != pytest.approx(vectors[1], abs=self.tolerance)
            assert vectors[1] != pytest.approx(vectors[2], abs=self.tolerance)

    def test_queries_are_embedded_as_queries(self) -> None:
        embeddings = self._embeddings()
        as_document = pytest.approx(embeddings.embed_documents([QUERY])[0], abs=self.tolerance)
        assert (embeddings.embed_query(QUERY) != as_document) == self.queries_differ_from_documents

    def test_async_gives_what_sync_gives(self) -> None:
        embeddings = self._embeddings()
        assert asyncio.run(embeddings.aembed_query(QUERY)) == embeddings.embed_query(QUERY)
        texts = list(TEXTS)
        assert asyncio.run(embeddings.aembed_documents(texts)) == embeddings.embed_documents(texts)

    def test_concurrent_async_calls_leave_the_event_loop_free(self) -> None:
        embeddings = self._embeddings()
        expected = embeddings.embed_query(QUERY)
        call = partial(embeddings.aembed_query, QUERY)
        for vector in self.check_loop_turns(embeddings, call, CONCURRENT_CALLS):
            assert vector == pytest.approx(expected, abs=self.tolerance)

    def test_copies_and_pickles_carry_the_configuration_only(self) -> None:
        def numbers(embeddings: Embeddings) -> list[float]:
            vectors = [embeddings.embed_query(QUERY), *embeddings.embed_documents(list(TEXTS))]
            return [number for vector in vectors for number in vector]

        self.check_copies(self._embeddings(), numbers)
