"""A user's subclass with a constructor of its own runs, and is saved, loaded and copied as it stands."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from haystack import Document, Pipeline, component
from haystack.core.errors import SerializationError
from haystack_integrations.components.embedders.qwen3_rag import Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag import Embedder, Reranker


class Code(Qwen3TextEmbedder):
    """Fixes one option, has a default of its own for another and passes on the rest."""

    def __init__(self, instruction: str = "code", **options: Any) -> None:
        super().__init__(model="demo", instruction=instruction, **options)


class Floor(Qwen3Ranker):
    """Has a parameter of its own."""

    def __init__(self, *, floor: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.floor = floor


class Between(Floor):
    """A second step, whose own parameter is kept before the parent's constructor is called."""

    def __init__(self, ceiling: float, **options: Any) -> None:
        self.ceiling = ceiling
        super().__init__(top_k=5, **options)


class Alone(Qwen3Ranker):
    """Passes nothing on."""

    def __init__(self, size: str) -> None:
        super().__init__(model=f"Qwen/Qwen3-Reranker-{size}", max_tokens=512)
        self.size = size


class Forgetful(Qwen3Ranker):
    """Does not keep what it needs."""

    def __init__(self, floor: float, ceiling: float = 1.0) -> None:
        super().__init__(model="demo", score_threshold=min(floor, ceiling))


SAVED: list[Any] = [
    (Code, {}, {"instruction": "code"}),
    (Code, {"max_tokens": 99, "instruction": "clustering"}, {"instruction": "clustering", "max_tokens": 99}),
    (Floor, {"model": "demo", "floor": 0.3}, {"model": "demo", "floor": 0.3}),
    (Floor, {}, {"floor": 0.1}),
    (Between, {"ceiling": 0.5, "floor": 0.2}, {"ceiling": 0.5, "floor": 0.2}),
    (Between, {"ceiling": 0.5, "dtype": "float32"}, {"ceiling": 0.5, "floor": 0.1, "dtype": "float32"}),
    (Alone, {"size": "4B"}, {"size": "4B"}),
]


@pytest.mark.parametrize(("cls", "given", "expected"), SAVED)
def test_what_it_was_given_makes_it_again(cls: Any, given: dict[str, Any], expected: dict[str, Any]) -> None:
    made = cls(**given)
    saved = made.to_dict()
    assert saved["init_parameters"] == expected
    twins = [copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    for twin in (cls.from_dict(saved), *twins):
        assert type(twin) is cls
        assert twin.to_dict() == saved
        assert twin._component.arguments == made._component.arguments


def test_what_is_given_by_position_is_saved() -> None:
    assert Code("clustering").to_dict()["init_parameters"] == {"instruction": "clustering"}


def test_attributes_assigned_since_are_saved() -> None:
    ranker = Floor(model="demo")
    ranker.floor, ranker.top_k = 0.7, 3
    again = Floor.from_dict(ranker.to_dict())
    assert (again.floor, again.top_k, again.model) == (0.7, 3, "demo")


def test_options_of_a_ready_component_are_saved() -> None:
    ready = Reranker("demo", max_tokens=500)
    ranker = Floor(reranker=ready, floor=0.2)
    assert copy.copy(ranker).reranker is ready
    again = Floor.from_dict(ranker.to_dict())
    assert again.reranker is not ready
    assert (again.reranker.arguments, again.floor) == (ready.arguments, 0.2)


def test_what_the_constructor_needs_must_be_an_attribute() -> None:
    made = Forgetful(0.5)
    with pytest.raises(
        SerializationError, match=r"needs floor, and .* no attribute .*; assign self\.floor = floor"
    ):
        made.to_dict()
    made.floor = 0.5  # type: ignore[attr-defined]
    assert made.to_dict()["init_parameters"] == {"floor": 0.5, "ceiling": 1.0}


def test_a_key_it_makes_itself_is_neither_saved_nor_in_the_way() -> None:
    class Keyed(Qwen3TextEmbedder):
        def __init__(self, **options: Any) -> None:
            super().__init__(model_kwargs={"api_key": "sk-1"}, **options)

    made = Keyed(model="demo")
    assert "sk-1" not in str(made.to_dict())
    assert copy.deepcopy(made).model_kwargs == {"api_key": "sk-1"}


def test_it_runs_in_a_pipeline(reranker: Reranker) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", Floor(**reranker.arguments, floor=0.2))
    found = pipeline.run({"ranker": {"query": "q", "documents": [Document(content="a")]}})
    plain = Qwen3Ranker(reranker=reranker).run("q", [Document(content="a")])
    assert found["ranker"]["documents"] == plain["documents"]


class Lower(Qwen3TextEmbedder):
    """Overrides `run` alone, with a parameter of its own."""

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str, suffix: str = "") -> dict[str, Any]:
        return super().run(text.lower() + suffix)


async def _run_async(pipeline: Pipeline, inputs: dict[str, Any]) -> dict[str, Any]:
    return await pipeline.run_async(inputs)


def test_async_runs_go_through_an_overridden_run(embedder: Embedder) -> None:
    lower = Lower(embedder=embedder)
    expected = lower.run("a!")["embedding"]
    assert asyncio.run(lower.run_async("A", suffix="!"))["embedding"] == expected
    pipeline = Pipeline()
    pipeline.add_component("embedder", lower)
    given = {"embedder": {"text": "A", "suffix": "!"}}
    assert asyncio.run(_run_async(pipeline, given))["embedder"]["embedding"] == expected


def test_both_overridden_runs_stay_as_they_are(embedder: Embedder) -> None:
    class Both(Lower):
        @component.output_types(embedding=list[float], meta=dict[str, Any])
        async def run_async(self, text: str, suffix: str = "") -> dict[str, Any]:
            return {"embedding": [1.0], "meta": {"text": text + suffix}}

    assert asyncio.run(Both(embedder=embedder).run_async("A"))["embedding"] == [1.0]
