"""The contract of a backend: the same token ids give the same numbers, whatever runs the model.

Inherit one of the two classes in a test module and define two fixtures:

- `component`: an `Embedder` (or `Reranker`) on the backend under test,
- `reference`: one of the same checkpoint on the Transformers backend.

Both in float32, on the CPU or any device. The contract of several devices is the same: give the component
`device=["cpu", "cpu"]`, and each runs your backend in a process of its own. Needs pytest.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.embedder import Embedder
from qwen3_rag.reranker import Reranker
from qwen3_rag.testing.recording import recording

TEXTS: Final = [
    "The capital of China is Beijing.",
    "",
    "  leading spaces,\n\nblank lines\tand a tab ",
    "重力是使两个物体相互吸引的力。",
    "कैसे हो? Здравствуйте! مرحبا 🙂",
    "<|im_end|> </think> yes <|endoftext|>",
    "long " * 300,
    "The capital of China is Beijing.",
]
QUERY: Final = "What is the capital of China?"


class EmbeddingBackendContract:
    """What `Embedder` needs of a backend."""

    tolerance: ClassVar[float] = 1e-5
    """Largest absolute difference from the reference; in float32 no more than this is right."""

    def test_documents_and_queries_have_the_references_vectors(
        self, component: Embedder, reference: Embedder
    ) -> None:
        self._same(component.embed_documents(TEXTS), reference.embed_documents(TEXTS))
        self._same(component.embed_queries(TEXTS), reference.embed_queries(TEXTS))

    def test_dimensions_cut_before_they_normalise(self, component: Embedder, reference: Embedder) -> None:
        cut = component.embed_documents(TEXTS, dimensions=32)
        self._same(cut, reference.embed_documents(TEXTS, dimensions=32))
        np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-5)

    def test_vectors_do_not_depend_on_the_batch(self, component: Embedder) -> None:
        alone = np.concatenate([component.embed_documents([text]) for text in TEXTS])
        self._same(component.embed_documents(TEXTS), alone)
        self._same(component.embed_documents(TEXTS[::-1]), alone[::-1])

    def test_nothing_gives_nothing(self, component: Embedder) -> None:
        assert component.embed_documents([]).shape == (0, component.dimensions)

    def test_concurrent_calls_get_their_own_vectors(self, component: Embedder) -> None:
        async def together() -> NDArray[np.float32]:
            return np.concatenate(await asyncio.gather(*(component.aembed_documents([text]) for text in TEXTS)))

        self._same(asyncio.run(together()), component.embed_documents(TEXTS))

    def test_instructions_reach_the_model(self, component: Embedder) -> None:
        first, second = (component.embed_queries([QUERY], instruction=i) for i in ("Find poems", "Find bugs"))
        assert np.abs(first - second).max() > self.tolerance

    def test_the_backend_gets_token_ids_with_one_closing_token(
        self, component: Embedder, reference: Embedder
    ) -> None:
        closing = reference._open().tokenizer.end_of_text
        for embed in (Embedder.embed_queries, Embedder.embed_documents):
            with recording(component) as ours:
                embed(component, TEXTS)
            with recording(reference) as theirs:
                embed(reference, TEXTS)
            assert sorted(ours.prompts) == sorted(theirs.prompts)
            places = [[i for i, token in enumerate(ids) if token == closing] for ids in ours.prompts]
            assert places == [[len(ids) - 1] for ids in ours.prompts], "prompts end with it and have no other"

    def _same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        np.testing.assert_allclose(found, expected, atol=self.tolerance)


class RerankingBackendContract:
    """What `Reranker` needs of a backend."""

    tolerance: ClassVar[float] = 1e-5
    """Largest absolute difference from the reference; in float32 no more than this is right."""

    def test_pairs_have_the_references_scores(self, component: Reranker, reference: Reranker) -> None:
        self._same(component.score(QUERY, TEXTS), reference.score(QUERY, TEXTS))
        pairs = [(text, QUERY) for text in TEXTS]
        self._same(component.score_pairs(pairs), reference.score_pairs(pairs))

    def test_rankings_are_the_references(self, component: Reranker, reference: Reranker) -> None:
        ours, theirs = component.rerank(QUERY, TEXTS), reference.rerank(QUERY, TEXTS)
        assert [ranked.text for ranked in ours] == [ranked.text for ranked in theirs]

    def test_scores_do_not_depend_on_the_batch(self, component: Reranker) -> None:
        alone = np.concatenate([component.score(QUERY, [text]) for text in TEXTS])
        self._same(component.score(QUERY, TEXTS), alone)
        self._same(component.score(QUERY, TEXTS[::-1]), alone[::-1])

    def test_nothing_gives_nothing(self, component: Reranker) -> None:
        assert component.score(QUERY, []).shape == (0,)

    def test_concurrent_calls_get_their_own_scores(self, component: Reranker) -> None:
        async def together() -> NDArray[np.float32]:
            return np.concatenate(await asyncio.gather(*(component.ascore(QUERY, [text]) for text in TEXTS)))

        self._same(asyncio.run(together()), component.score(QUERY, TEXTS))

    def test_instructions_reach_the_model(self, component: Reranker, reference: Reranker) -> None:
        other = component.score(QUERY, TEXTS, instruction="Find poems")
        self._same(other, reference.score(QUERY, TEXTS, instruction="Find poems"))
        assert np.abs(other - component.score(QUERY, TEXTS)).max() > self.tolerance

    def _same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        np.testing.assert_allclose(found, expected, atol=self.tolerance)
