"""What an embedder or ranker for Haystack owes its users.

Inherit a class, give its two properties and `hold`, and pytest checks the contract. Nothing here knows
Qwen3, so components of other vendors may be held to it as well::

    class TestMyRanker(RankerContract):
        @property
        def component_class(self):
            return MyRanker

        @property
        def component_params(self):
            return {"model": "my-model"}

        def hold(self, adapter):
            return my_gate_in_front_of(adapter.client)  # see EventLoopContract.hold

The class must be in `haystack_integrations`, or else be in the allow-list that Haystack loads files with.
"""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import re
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest
from haystack import Document, Pipeline
from haystack.tools import ComponentTool

from qwen3_rag.testing.event_loop import EventLoopContract
from qwen3_rag.testing.weights import holds_tensor

CONCURRENT_CALLS: Final = 50

QUERY: Final = "How long does light take from the sun to the earth?"


def make_documents() -> list[Document]:
    """Return new documents: with and without content, with line breaks and leading spaces, with meta values."""
    return [
        Document(content="Light from the sun takes about eight minutes to reach the earth.", meta={"page": 0}),
        Document(content="The sun is a star.", meta={"title": "Stars", "tags": ["sun"]}, score=0.25),
        Document(content="Bread is baked from flour,\nwater and salt.", meta={"title": None}),
        Document(content="   The distance from the sun to the earth is one astronomical unit."),
        Document(content=None, meta={"title": "Empty"}),
        Document(content=""),
    ]


class _ComponentContract(EventLoopContract):
    """What all kinds have in common.

    Attributes:
        tolerance: most by which a number may differ when it is computed again, or in other company.
        most_pickled_bytes: a configuration is smaller, weights are larger.
        most_described_characters: every request to a language model that may use the component as a tool has
            its description.
    """

    tolerance: float = 1e-4
    most_pickled_bytes: int = 20_000
    most_described_characters: int = 1_000

    @property
    @abstractmethod
    def component_class(self) -> Any:
        """The class under test."""

    @property
    def component_params(self) -> dict[str, Any]:
        """Arguments of its constructor; none unless overridden."""
        return {}

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Return new arguments for `run`."""

    @abstractmethod
    def numbers(self, output: dict[str, Any]) -> list[float]:
        """Return what the component computed, flat, from the output of `run`."""

    @pytest.fixture
    def component(self) -> Iterator[Any]:
        """A component as a user makes it, closed afterwards if it can be."""
        component = self.make()
        yield component
        if hasattr(component, "close"):
            component.close()

    def make(self, **more: Any) -> Any:
        """Return a new component, with further arguments."""
        return self.component_class(**{**self.component_params, **more})

    def agree(self, output: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether two outputs hold the same numbers, within the tolerance."""
        pairs = zip(self.numbers(output), self.numbers(other), strict=True)
        return all(math.isclose(a, b, rel_tol=0, abs_tol=self.tolerance) for a, b in pairs)

    def test_dictionary_makes_an_equal_component(self, component: Any) -> None:
        saved = component.to_dict()
        assert self.component_class.from_dict(copy.deepcopy(saved)).to_dict() == saved

    def test_a_subclass_may_have_a_constructor_of_its_own(self) -> None:
        parent = self.component_class

        class Own(parent):  # type: ignore[misc,valid-type]
            def __init__(self, own: int = 3, **options: Any) -> None:
                super().__init__(**options)
                self.own = own

        made = Own(own=5, **self.component_params)
        assert made.own == 5
        assert self.agree(made.run(**self.inputs()), self.make().run(**self.inputs()))

    def test_a_tools_description_is_for_language_models(self, component: Any) -> None:
        description = ComponentTool(component=component).description
        assert not re.search(r"<\|\w+\|>|</?\w+>|\[/?INST\]", description), "a control token"
        assert not re.search(r"Args:|Parameters|:param ", description), "parameters that no model can set"
        assert len(description) <= self.most_described_characters

    def test_from_dict_leaves_its_argument_alone(self, component: Any) -> None:
        saved = component.to_dict()
        before = copy.deepcopy(saved)
        self.component_class.from_dict(saved)
        assert saved == before

    def test_pipeline_file_round_trips_with_the_default_allow_list(self, component: Any) -> None:
        pipeline = Pipeline()
        pipeline.add_component("component", component)
        again = Pipeline.loads(pipeline.dumps())
        assert again.dumps() == pipeline.dumps()
        output = again.run({"component": self.inputs()})["component"]
        assert self.agree(output, component.run(**self.inputs()))

    def test_run_loads_by_itself_and_warm_up_may_be_repeated(self, component: Any) -> None:
        cold = component.run(**self.inputs())
        component.warm_up()
        component.warm_up()
        assert self.agree(component.run(**self.inputs()), cold)

    def test_meta_reports_usage(self, component: Any) -> None:
        meta = component.run(**self.inputs())["meta"]
        assert meta["model"]
        assert meta["usage"]["prompt_tokens"] > 0

    def test_pickle_and_deep_copy_carry_configuration_only(self, component: Any) -> None:
        expected = component.run(**self.inputs())
        pickled = pickle.dumps(component)
        assert len(pickled) < self.most_pickled_bytes, f"{len(pickled)} bytes: more than a configuration"
        for twin in (pickle.loads(pickled), copy.deepcopy(component)):
            assert not holds_tensor(twin), "weights came along"
            assert self.agree(twin.run(**self.inputs()), expected)

    def test_inputs_are_not_changed(self, component: Any) -> None:
        inputs = self.inputs()
        component.run(**inputs)
        assert inputs == self.inputs()

    def test_async_run_equals_run(self, component: Any) -> None:
        inputs = self.inputs()
        output = asyncio.run(component.run_async(**inputs))
        assert self.agree(output, component.run(**self.inputs()))
        assert inputs == self.inputs()

    def test_event_loop_keeps_turning_during_warm_up(self, component: Any) -> None:
        if not hasattr(component, "warm_up_async"):
            pytest.skip("has nothing to warm up in an async pipeline")
        self.check_loop_turns(component, component.warm_up_async)

    def test_event_loop_keeps_turning_while_the_model_loads(self, component: Any) -> None:
        self.check_loop_turns(component, partial(component.run_async, **self.inputs()))

    def test_event_loop_keeps_turning_during_many_calls(self, component: Any) -> None:
        component.warm_up()
        call = partial(component.run_async, **self.inputs())
        outputs = self.check_loop_turns(component, call, CONCURRENT_CALLS)
        expected = component.run(**self.inputs())
        assert all(self.agree(output, expected) for output in outputs)

    def test_async_pipeline_gives_the_same(self, component: Any) -> None:
        pipeline = Pipeline()
        pipeline.add_component("component", component)
        output = asyncio.run(pipeline.run_async({"component": self.inputs()}))["component"]
        assert self.agree(output, component.run(**self.inputs()))


class TextEmbedderContract(_ComponentContract):
    """For a component that embeds one string: `component_class` and `component_params`."""

    def inputs(self) -> dict[str, Any]:
        return {"text": QUERY}

    def numbers(self, output: dict[str, Any]) -> list[float]:
        embedding: list[float] = output["embedding"]
        return embedding

    def test_embedding_is_a_list_of_floats(self, component: Any) -> None:
        embedding = component.run(text=QUERY)["embedding"]
        assert type(embedding) is list
        assert embedding
        assert {type(value) for value in embedding} == {float}

    def test_empty_text_has_an_embedding_as_long_as_others(self, component: Any) -> None:
        assert len(component.run(text="")["embedding"]) == len(component.run(text=QUERY)["embedding"])

    def test_texts_differ_by_line_breaks(self, component: Any) -> None:
        outputs = [component.run(text=text) for text in ("a\nb", "a b")]
        assert not self.agree(*outputs)

    @pytest.mark.parametrize("wrong", [[QUERY], None, 3, [Document(content=QUERY)]])
    def test_anything_but_a_string_is_a_type_error(self, component: Any, wrong: Any) -> None:
        with pytest.raises(TypeError):
            component.run(text=wrong)


class _DocumentsContract(_ComponentContract):
    """What components have in common that take documents and return copies of them."""

    @abstractmethod
    def run(self, component: Any, documents: list[Document]) -> list[Document]:
        """Run with documents and return the documents that come out."""

    def test_no_documents_give_no_documents(self, component: Any) -> None:
        assert self.run(component, []) == []

    def test_documents_that_come_out_are_copies(self, component: Any) -> None:
        documents = make_documents()
        outputs = self.run(component, documents)
        assert not {id(document) for document in outputs} & {id(document) for document in documents}
        assert documents == make_documents()

    def test_ids_contents_and_meta_are_kept(self, component: Any) -> None:
        documents = make_documents()
        by_id = {document.id: document for document in self.run(component, documents)}
        assert len(by_id) == len(documents)
        for document in documents:
            assert by_id[document.id].content == document.content
            assert by_id[document.id].meta == document.meta

    @pytest.mark.parametrize("wrong", ["text", ["text"], [Document(content="a"), None], Document(content="a")])
    def test_anything_but_a_list_of_documents_is_a_type_error(self, component: Any, wrong: Any) -> None:
        with pytest.raises(TypeError):
            self.run(component, wrong)

    def computed_alike(self, first: Document, second: Document) -> bool:
        """Whether a component that embeds the meta values `title` and `page` gives both the same numbers."""
        component = self.make(meta_fields_to_embed=["title", "page"])
        values = [self.numbers({"documents": self.run(component, [document])}) for document in (first, second)]
        pairs = zip(*values, strict=True)
        return all(math.isclose(a, b, rel_tol=0, abs_tol=self.tolerance) for a, b in pairs)

    def test_meta_fields_come_before_the_content(self) -> None:
        document = Document(content="text", meta={"title": "T", "page": 7})
        assert self.computed_alike(document, Document(content="T\n7\ntext"))

    @pytest.mark.parametrize("value", [0, False, 0.0])
    def test_false_meta_values_are_kept(self, value: Any) -> None:
        document = Document(content="text", meta={"page": value})
        assert self.computed_alike(document, Document(content=f"{value}\ntext"))

    def test_missing_meta_fields_and_none_are_left_out(self) -> None:
        assert self.computed_alike(Document(content="text", meta={"title": None}), Document(content="text"))


class DocumentEmbedderContract(_DocumentsContract):
    """For a component that embeds documents: `component_class` and `component_params`.

    The class has `meta_fields_to_embed`, and "\\n" as its separator.
    """

    def inputs(self) -> dict[str, Any]:
        return {"documents": make_documents()}

    def numbers(self, output: dict[str, Any]) -> list[float]:
        return [value for document in output["documents"] for value in document.embedding]

    def run(self, component: Any, documents: list[Document]) -> list[Document]:
        outputs: list[Document] = component.run(documents=documents)["documents"]
        return outputs

    def test_order_is_kept(self, component: Any) -> None:
        documents = make_documents()
        assert [d.id for d in self.run(component, documents)] == [d.id for d in documents]

    def test_each_document_gets_its_own_embedding(self, component: Any) -> None:
        documents = make_documents()
        together = component.run(documents=documents)
        alone = [self.run(component, [document])[0] for document in documents]
        assert self.agree(together, {"documents": alone})

    def test_embeddings_are_lists_of_floats_of_one_length(self, component: Any) -> None:
        embeddings: list[Any] = [document.embedding for document in self.run(component, make_documents())]
        assert {type(embedding) for embedding in embeddings} == {list}
        assert {type(value) for embedding in embeddings for value in embedding} == {float}
        assert len({len(embedding) for embedding in embeddings}) == 1


class RankerContract(_DocumentsContract):
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

    def test_threshold_of_zero_replaces_the_constructors(self) -> None:
        strict = self.make(score_threshold=1.1)
        assert self.scores(strict) == []
        assert len(self.scores(strict, score_threshold=0.0)) == len(make_documents())
