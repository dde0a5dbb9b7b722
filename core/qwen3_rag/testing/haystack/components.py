"""What every component owes its users."""

from __future__ import annotations

import asyncio
import copy
import math
import re
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest
from haystack import Pipeline
from haystack.tools import ComponentTool

from qwen3_rag.testing.adapter import CONCURRENT_CALLS, AdapterContract

QUERY: Final = "How long does light take from the sun to the earth?"


class ComponentContract(AdapterContract):
    """What all kinds have in common.

    Attributes:
        most_described_characters: every request to a language model that may use the component as a tool has
            its description.
    """

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
        self.check_copies(component, lambda c: self.numbers(c.run(**self.inputs())))

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
