"""Options of the adapters of all frameworks: what is taken, kept, shown and copied."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import component, every_adapter, every_pydantic_adapter
from pydantic import BaseModel
from qwen3_rag import ConfigurationError, Embedder, Reranker
from transformers import BitsAndBytesConfig


@every_adapter
def test_a_path_names_a_folder_and_is_kept_as_a_string(adapter: Any, tmp_path: Path) -> None:
    made = adapter(model=tmp_path)
    for one in (made, copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert one.model == component(one).arguments["model"] == str(tmp_path)
    assert adapter(**{adapter.ready: adapter.core_class(tmp_path)}, model=tmp_path).model == str(tmp_path)
    written = made.model_dump() if issubclass(adapter, BaseModel) else made.to_dict()["init_parameters"]
    assert str(tmp_path) in written.values()


@every_pydantic_adapter
def test_dumps_inside_other_models_tell_quantisations_apart(adapter: Any) -> None:
    class Step(BaseModel):
        model: adapter

    def step(**options: Any) -> Step:
        config = BitsAndBytesConfig(**options)
        return Step(model=adapter(model_kwargs={"quantization_config": config, "nested": [{"config": config}]}))

    four, eight = step(load_in_4bit=True), step(load_in_8bit=True)
    assert four.model_dump() != eight.model_dump()
    assert four.model_dump_json() != eight.model_dump_json()
    assert four.model_dump() == step(load_in_4bit=True).model_dump()
    again = Step.model_validate_json(four.model_dump_json())
    assert again.model.model_kwargs["quantization_config"]["load_in_4bit"] is True
    assert again.model.model_kwargs["nested"][0]["config"]["quant_method"] == "bitsandbytes"


@every_pydantic_adapter
def test_what_an_options_own_dict_holds_is_dumped_without_secrets(adapter: Any) -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return {"bits": 4, "hf_token": "sk-1"}

    made = adapter(model_kwargs={"config": Config()})
    assert made.model_dump()["model_kwargs"] == {"config": {"bits": 4}}
    assert "sk-1" not in made.model_dump_json()


@every_pydantic_adapter
def test_what_pydantic_refuses_shows_no_key(adapter: Any) -> None:
    with pytest.raises(ValueError, match="modl") as refused:
        adapter.model_validate({"modl": "demo", "model_kwargs": {"api_key": "sk-secret"}})
    assert "sk-secret" not in str(refused.value)


@every_adapter
@pytest.mark.parametrize("kwargs", [{"token": "sk-1"}, {"a": [{"X-Api-Key": "sk-1"}]}, {"password": ["sk-1"]}])
def test_a_secret_is_copied_and_not_pickled(adapter: Any, kwargs: dict[str, Any]) -> None:
    made = adapter(model_kwargs=kwargs)
    for copied in (copy.copy(made), copy.deepcopy(made)):
        assert component(copied).arguments["model_kwargs"] == kwargs
    with pytest.raises(TypeError, match=r"model_kwargs\[.*holds a secret") as caught:
        pickle.dumps(made)
    assert "sk-1" not in str(caught.value)


@every_adapter
def test_a_ready_component_of_another_kind_is_refused(adapter: Any) -> None:
    wrong = Reranker if adapter.core_class is Embedder else Embedder
    with pytest.raises(
        ConfigurationError, match=f"{adapter.ready} must be a qwen3_rag.*, got {wrong.__name__}"
    ):
        adapter(**{adapter.ready: wrong()})


@every_adapter
@pytest.mark.parametrize("given_devices", [["cpu", "cpu"], ("cpu", "cpu")])
def test_devices_beside_a_ready_component_are_a_list_or_a_tuple(adapter: Any, given_devices: Any) -> None:
    ready = adapter.core_class(device=["cpu", "cpu"])
    assert component(adapter(**{adapter.ready: ready}, device=given_devices)) is ready


@every_adapter
def test_an_option_is_not_assigned_and_its_value_not_shown(adapter: Any) -> None:
    made = adapter(model="some/model")
    for name in [*component(made).arguments, adapter.ready]:
        with pytest.raises(ConfigurationError, match=rf"^{name} of a {adapter.__name__} is fixed") as caught:
            setattr(made, name, {"api_key": "sk-1"})
        assert "sk-1" not in str(caught.value)
    assert component(made).arguments == component(adapter(model="some/model")).arguments


@every_adapter
def test_what_the_caller_does_to_its_own_options_later_is_not_seen(adapter: Any) -> None:
    devices, kwargs = ["cpu"], {"a": 1}
    made = adapter(device=devices, model_kwargs=kwargs)
    devices.append("cuda")
    kwargs["b"] = 2
    for one in (made, copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (one.device, one.model_kwargs) == (["cpu"], {"a": 1})
        assert component(one).arguments["device"] == ["cpu"]
        assert component(one).arguments["model_kwargs"] == {"a": 1}


WRONG = [{"max_tokens": -1}, {"max_tokens": 50.5}, {"dimensions": 3}, {"dimensions": True}]


@every_adapter
@pytest.mark.parametrize("wrong", WRONG)
def test_a_number_that_no_model_takes_is_refused_at_once(adapter: Any, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    if name == "dimensions" and adapter.core_class is Reranker:
        pytest.skip("a score has no dimensions")
    with pytest.raises((ValueError, TypeError), match=name):
        adapter(model="no/such-model", **wrong)


@every_adapter
def test_numpys_whole_numbers_are_taken(adapter: Any) -> None:
    made = adapter(model="no/such-model", max_tokens=np.int64(77))
    assert made.max_tokens == component(made).arguments["max_tokens"] == 77
    assert type(component(made).arguments["max_tokens"]) is int
