"""What a ranker owes its users."""

from __future__ import annotations

from typing import Any

import pytest
from haystack import Document

from qwen3_rag.testing.haystack.components import QUERY
from qwen3_rag.testing.haystack.documents import DocumentsContract, make_documents


class RankerContract(DocumentsContract):
    """For a component that scores documents for a query: `component_class` and `component_params`.

    The class has `meta_fields_to_embed` with "\\n" as its separator, `top_k`, and `score_threshold`,
    the last two as arguments of `run` too, and returns all documents by default.
    """

    def inputs(self) -> dict[str, Any]:
        return {"query": QUERY, "documents": make_documents()}

    def numbers(self, output: dict[str, Any]) -> list[float]:
        return [document.score for document in output["documents"]]

    def run(self, component: Any, documents: list[Document], **more: Any) -> list[Document]:
        outputs: list[Document] = component.run(query=QUERY, documents=documents, **more)["documents"]
        return outputs

    def scores(self, component: Any, **more: Any) -> list[float]:
        """Return the scores of all documents that come out, in their order."""
        return self.numbers({"documents": self.run(component, make_documents(), **more)})

    def test_best_comes_first_with_its_score(self, component: Any) -> None:
        scores = self.scores(component)
        assert scores == sorted(scores, reverse=True)
        assert {type(score) for score in scores} == {float}
        assert len(set(scores)) > 1

    def test_ties_keep_the_order_given(self, component: Any) -> None:
        documents = [Document(id=name, content="The same text.") for name in "dacb"]
        assert [document.id for document in self.run(component, documents)] == list("dacb")

    def test_scores_do_not_depend_on_the_order_given(self, component: Any) -> None:
        forward = self.run(component, make_documents())
        backward = self.run(component, make_documents()[::-1])
        by_id = {document.id: document.score for document in backward}
        assert [d.score for d in forward] == pytest.approx([by_id[d.id] for d in forward], abs=self.tolerance)

    def test_top_k_returns_the_best(self, component: Any) -> None:
        best = [document.id for document in self.run(component, make_documents())]
        assert [document.id for document in self.run(component, make_documents(), top_k=2)] == best[:2]
        assert [document.id for document in self.run(self.make(top_k=2), make_documents())] == best[:2]

    def test_top_k_larger_than_the_list_returns_all(self, component: Any) -> None:
        assert len(self.scores(component, top_k=100)) == len(make_documents())

    def test_top_k_of_a_run_replaces_the_constructors(self) -> None:
        component = self.make(top_k=1)
        assert len(self.scores(component, top_k=3)) == 3
        assert len(self.scores(component, top_k=None)) == 1

    def test_top_k_zero_never_means_all(self, component: Any) -> None:
        try:
            assert self.scores(component, top_k=0) == []
        except ValueError:  # Haystack's own rankers refuse it
            return

    def test_negative_top_k_is_a_value_error(self, component: Any) -> None:
        with pytest.raises(ValueError, match="top_k"):
            self.make(top_k=-1)
        with pytest.raises(ValueError, match="top_k"):
            self.scores(component, top_k=-1)

    @pytest.mark.parametrize("wrong", [{"top_k": "2"}, {"score_threshold": "0.5"}])
    def test_a_limit_of_another_type_is_found_when_it_is_given(self, wrong: dict[str, Any]) -> None:
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            self.make(**wrong)

    def test_threshold_keeps_what_reaches_it(self, component: Any) -> None:
        scores = self.scores(component)
        between = (scores[1] + scores[2]) / 2
        assert len(self.scores(component, score_threshold=between)) == 2
        assert len(self.scores(self.make(score_threshold=between))) == 2

    def test_threshold_of_zero_replaces_the_constructors(self, component: Any) -> None:
        strict = self.make(score_threshold=self.scores(component)[0])
        assert len(self.scores(strict)) < len(make_documents())
        assert len(self.scores(strict, score_threshold=0.0)) == len(make_documents())
