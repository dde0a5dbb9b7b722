"""A component's arguments are checked and copied when it is made, before anything is opened."""

from __future__ import annotations

import copy
import os
import pickle
from collections import UserList
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import CheckpointError, ConfigurationError, Embedder, Reranker

NOWHERE = "no/such-model"


class BytesPath:
    """As an entry of `os.scandir(b".")`."""

    def __fspath__(self) -> bytes:
        return b"model"


every_component = pytest.mark.parametrize("component", [Embedder, Reranker])


@every_component
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tokens": 50.5}, "max_tokens must be a whole number, got 50.5"),
        ({"max_tokens": True}, "max_tokens must be a whole number, got True"),
        ({"max_tokens": None}, "max_tokens must be a whole number, got None"),
        ({"max_queued": "8"}, "max_queued must be a whole number, got '8'"),
        ({"token_budget": 1e3}, "token_budget must be a whole number or None, got 1000.0"),
        ({"timeout": "5"}, "timeout must be a number or None, got '5'"),
        ({"max_wait_ms": None}, "max_wait_ms must be a number, got None"),
        ({"parse_special_tokens": "false"}, "parse_special_tokens must be True or False, got 'false'"),
        ({"share_prefixes": 0}, "share_prefixes must be True or False, got 0"),
        ({"backend": 7}, "backend must be a str, got 7"),
        ({"backend": None}, "backend must be a str, got None"),
        ({"backend": ["vllm"]}, r"backend must be a str, got \['vllm'\]"),
        ({"revision": 5}, "revision must be a str or None, got 5"),
        ({"device": 0}, 'name such as "cuda:1", a list of such names, or None, got 0'),
        ({"device": ["cpu", 1]}, r"a list of such names, or None, got \['cpu', 1\]"),
        ({"model_kwargs": ["sk-secret"]}, "model_kwargs must be a mapping or None, got list"),
        ({"model_kwargs": {1: 2}}, "model_kwargs must have a str for each key, got 1"),
    ],
)
def test_a_wrong_type_is_told_with_what_is_asked_for(component: Any, wrong: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        component(NOWHERE, **wrong)


@every_component
@pytest.mark.parametrize("backend", ["transformers", "remote"])
@pytest.mark.parametrize(
    ("name", "option"),
    [("dtype", "dtype"), ("torch_dtype", "dtype"), ("device", "device"), ("revision", "revision")],
)
def test_what_is_an_option_of_its_own_is_not_taken_from_model_kwargs(
    component: Any, backend: str, name: str, option: str
) -> None:
    message = rf"model_kwargs holds '{name}', which is an option of its own: move it out, as {option}=\.\.\."
    with pytest.raises(ConfigurationError, match=message):
        component(NOWHERE, backend=backend, model_kwargs={name: "cpu"})


@pytest.mark.parametrize("wrong", [True, 64.0, "64"])
def test_dimensions_are_a_whole_number(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"dimensions must be a whole number or None, got {wrong!r}"):
        Embedder(NOWHERE, dimensions=wrong)


@every_component
@pytest.mark.parametrize("wrong", [-1, 0])
def test_no_prompt_is_that_short(component: Any, wrong: int) -> None:
    with pytest.raises(ConfigurationError, match=f"max_tokens must be 1 or more, and at most .*, got {wrong}"):
        component(NOWHERE, max_tokens=wrong)


@pytest.mark.parametrize("wrong", [-1, 0, 31])
def test_no_vector_is_that_short(wrong: int) -> None:
    with pytest.raises(ConfigurationError, match=f"dimensions must be 32 or more, at most .*, got {wrong}"):
        Embedder(NOWHERE, dimensions=wrong)
    embedder = Embedder("./no-such-folder")
    with pytest.raises(ConfigurationError, match=f"dimensions must be 32 or more, at most .*, got {wrong}"):
        embedder.embed_documents(["a"], dimensions=wrong)  # before the checkpoint is looked for


def test_numpys_numbers_are_taken_and_become_pythons() -> None:
    given: dict[str, Any] = {
        "dimensions": np.int64(64),
        "max_tokens": np.int32(512),
        "token_budget": np.uint16(99),
        "max_queued": np.int64(7),
        "timeout": np.float32(1.5),
        "share_prefixes": np.False_,
    }
    embedder = Embedder(NOWHERE, **given)
    kept = {name: embedder.arguments[name] for name in given}
    assert kept == given
    assert [type(value) for value in kept.values()] == [int] * 4 + [float, bool]
    plain = Embedder(
        NOWHERE, dimensions=64, max_tokens=512, token_budget=99, max_queued=7, share_prefixes=False
    )
    assert embedder._settings.key == plain._settings.key


@every_component
def test_a_path_names_a_folder_and_is_kept_as_a_string(component: Any, tmp_path: Path) -> None:
    assert component(tmp_path / "model").model == str(tmp_path / "model")
    assert component(Path("~/model")).arguments["model"] == str(Path("~/model"))
    assert component(Path("some/model")).model == os.path.join(os.curdir, "some", "model")
    assert component(Path("..", "model")).model == os.path.join(os.pardir, "model")
    assert component(Path(".hidden", "model")).model == os.path.join(os.curdir, ".hidden", "model")
    for one in (made := component(tmp_path), pickle.loads(pickle.dumps(made)), copy.copy(made)):
        assert one.arguments["model"] == str(tmp_path)
        assert one._settings.key == component(str(tmp_path))._settings.key
    with pytest.raises(ConfigurationError, match=r"a str or a path, got b'model'"):
        component(b"model")
    with pytest.raises(ConfigurationError, match=r"a str or a path, got b'model'"):
        component(BytesPath())


def test_a_path_is_never_looked_for_on_a_hub() -> None:
    with pytest.raises(CheckpointError, match=r"no such folder: \..demo"):
        Embedder(Path("demo")).load()


@every_component
def test_what_the_caller_does_to_its_own_list_and_dict_later_is_not_seen(component: Any) -> None:
    devices, kwargs = UserList(["cpu"]), {"a": 1}
    made = component(NOWHERE, device=devices, model_kwargs=kwargs)
    devices.append("cuda")
    kwargs["b"] = 2
    for one in (made, pickle.loads(pickle.dumps(made))):
        assert (one.arguments["device"], one.arguments["model_kwargs"]) == (["cpu"], {"a": 1})
        assert one._settings.device == ("cpu",)


@pytest.mark.parametrize("wrong", ["2", 2.0, True, [2]])
def test_top_k_of_another_type_is_told_before_anything_is_opened(wrong: Any) -> None:
    with pytest.raises(TypeError, match="top_k must be a whole number, 0 or more, or None for all, got"):
        Reranker(NOWHERE).rerank("q", ["a"], top_k=wrong)


def test_top_k_may_be_numpys() -> None:
    assert Reranker("demo", device="cpu").rerank("q", ["a", "b"], top_k=np.int64(1))[0].text in ("a", "b")
