"""A user's subclass with a constructor, fields and validators of its own works, and is copied as it stands."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from copies import every_copy, older_copy
from langchain_core.documents import Document
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from qwen3_rag import ConfigurationError, Embedder


class Task(Qwen3Embeddings):
    """Has an argument of its own, which it keeps in a private attribute, and a lock."""

    _task: str = PrivateAttr()
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, task: str, **options: Any) -> None:
        super().__init__(instruction=f"Find code that can {task}", **options)
        self._task = task


class Floor(Qwen3Reranker):
    """Has a field of its own, and passes nothing on."""

    floor: float = Field(default=0.1, le=1)
    kinds: list[str] = Field(default_factory=list)

    def __init__(self, size: str, floor: float) -> None:
        super().__init__(model=f"Qwen/Qwen3-Reranker-{size}", floor=floor, kinds=["a"])


class Polite(Qwen3Reranker):
    """Changes what it is given, each time that it is asked."""

    @field_validator("instruction")
    @classmethod
    def _please(cls, instruction: str | None) -> str:
        return f"Please: {instruction}"


class Noting(Qwen3Embeddings):
    """Has an attribute that pydantic knows nothing of, and one that it computes once."""

    notes: dict[str, list[int]] = Field(default_factory=dict)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self, "client", "a client")

    @cached_property
    def label(self) -> str:
        return f"{self.dimensions} dimensions"


class Sized(Qwen3Embeddings):
    """Takes the model's size, and other names for two options."""

    model: str = Field(default="Qwen/Qwen3-Embedding-0.6B", alias="model_id")
    max_tokens: int = Field(default=512, validation_alias="longest")

    @model_validator(mode="before")
    @classmethod
    def _named_by_size(cls, options: dict[str, Any]) -> dict[str, Any]:
        size = options.pop("size", None)
        return options if size is None else {**options, "model_id": f"Qwen/Qwen3-Embedding-{size}"}


@every_copy
def test_no_constructor_is_needed_for_a_copy(make: Any) -> None:
    made = Task("sort", model="demo", dimensions=32)
    twin = make(made)
    assert type(twin) is Task
    assert (twin._task, twin.instruction) == ("sort", "Find code that can sort")
    assert twin.embedder.arguments == made.embedder.arguments
    assert twin.embedder is not made.embedder
    assert twin.model_dump() == made.model_dump()
    assert twin.model_fields_set >= made.model_fields_set


@every_copy
def test_fields_of_a_subclass_are_kept(make: Any) -> None:
    twin = make(Floor("4B", 0.3))
    assert (twin.floor, twin.model, twin.kinds) == (0.3, "Qwen/Qwen3-Reranker-4B", ["a"])


@every_copy
def test_validators_do_not_see_a_value_twice(make: Any) -> None:
    twin = make(Polite(instruction="rank"))
    assert twin.instruction == twin.reranker.arguments["instruction"] == "Please: rank"


@every_copy
def test_attributes_that_pydantic_does_not_know_are_kept(make: Any) -> None:
    assert make(Noting()).client == "a client"


def test_what_is_computed_of_an_option_is_computed_anew_in_a_copy() -> None:
    made = Noting(dimensions=64)
    assert made.label == "64 dimensions"
    assert made.model_copy(update={"dimensions": 32}).label == "32 dimensions"


def test_what_a_copy_changes_counts_as_set() -> None:
    changed = Noting(dimensions=64).model_copy(update={"max_tokens": 99})
    assert changed.model_dump(exclude_unset=True).keys() == {"dimensions", "max_tokens"}


def test_what_a_copy_changes_is_validated_and_nothing_else() -> None:
    changed = Polite(instruction="rank").model_copy(update={"top_n": "7"})
    assert (changed.top_n, changed.instruction) == (7, "Please: rank")
    assert changed.model_copy(update={"instruction": "sort"}).instruction == "Please: sort"
    with pytest.raises(ValidationError, match="floor"):
        Floor("4B", 0.3).model_copy(update={"floor": 2})
    with pytest.raises(ConfigurationError, match=r"Floor has no option size; there are: .*floor"):
        Floor("4B", 0.3).model_copy(update={"size": "8B"})


def test_copies_of_a_subclass_share_a_ready_component(embedder: Embedder) -> None:
    class Named(Qwen3Embeddings):
        def __init__(self, ready: Embedder) -> None:
            super().__init__(embedder=ready)

    made = Named(embedder)
    assert copy.copy(made).embedder is embedder
    assert made.model_copy(update={"show_progress": True}).embedder is embedder
    short = made.model_copy(update={"dimensions": 32})
    assert short.embedder.arguments == {**embedder.arguments, "dimensions": 32}
    assert made.model_copy(update={"embedder": None}).embedder.arguments == embedder.arguments
    for deep in (copy.deepcopy(made), older_copy(made, deep=True)):
        assert deep.embedder is not embedder
        assert deep.embedder.arguments == embedder.arguments
    assert Noting().model_copy(update={"embedder": embedder}, deep=True).embedder is embedder


def test_lists_are_not_shared_with_a_ready_component() -> None:
    ready = Embedder("demo", device=["cpu", "cpu"])
    made = Qwen3Embeddings(embedder=ready)
    assert made.device == ["cpu", "cpu"]
    assert made.device is not ready.arguments["device"]


def test_deep_copies_have_their_own_lists_and_share_what_cannot_be_copied() -> None:
    floor = Floor("4B", 0.3)
    assert copy.copy(floor).kinds is floor.kinds
    assert copy.deepcopy(floor).kinds is not floor.kinds
    task = Task("sort")
    assert copy.deepcopy(task)._lock is task._lock
    value = object()
    made = Noting(notes={"a": [1]}, device=["cpu", "cpu"], model_kwargs={"option": value})
    deep = copy.deepcopy(made)
    assert deep.notes["a"] is not made.notes["a"]
    assert deep.device is not made.device
    assert deep.model_kwargs is not made.model_kwargs
    assert deep.model_kwargs["option"] is value, "the loader gets what the user made"


def test_what_an_adapter_shares_with_others_is_shared_by_their_deep_copies() -> None:
    made = Task("sort")
    made._lock = shared = [1]
    copied, twin = copy.deepcopy((shared, made))
    assert copied is not shared
    assert twin._lock is copied


def test_a_deep_copy_of_what_refers_to_itself_ends() -> None:
    task = Task("sort")
    task._lock = [task]
    twin = copy.deepcopy(task)
    assert twin._lock[0] is twin


def test_a_pickle_makes_anew_what_it_cannot_hold() -> None:
    task = Task("sort")
    twin = pickle.loads(pickle.dumps(task))
    assert twin._lock is not task._lock
    assert twin._lock.acquire(blocking=False)


def test_a_secret_in_a_private_attribute_is_not_pickled() -> None:
    class Keyed(Qwen3Embeddings):
        _api_key: str = PrivateAttr(default="sk-do-not-print-me")

    with pytest.raises(TypeError, match=r"attributes\['_api_key'\] holds a secret") as caught:
        pickle.dumps(Keyed())
    assert "sk-do" not in str(caught.value)
    assert copy.deepcopy(Keyed())._api_key == "sk-do-not-print-me"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_tokens", -1, ConfigurationError),
        ("top_n", -1, ValidationError),
        ("floor", "low", ValidationError),
        ("flor", 0.1, ConfigurationError),
    ],
)
def test_what_is_unpickled_is_checked(name: str, value: Any, error: type[Exception]) -> None:
    made = Floor("4B", 0.3)
    remake, (cls, state) = made.__reduce__()
    state.fields[name] = value
    with pytest.raises(error, match=name):
        remake(cls, state)


def test_what_an_older_pickle_lacks_has_its_default() -> None:
    remake, (cls, state) = Floor("4B", 0.3).__reduce__()
    del state.fields["max_queued"], state.fields["floor"]
    made: Any = remake(cls, state)
    assert (made.max_queued, made.floor) == (1024, 0.1)


def test_another_process_unpickles_it(tmp_path: Path) -> None:
    (tmp_path / "pickled").write_bytes(pickle.dumps(Task("sort", model="demo")))
    script = (
        f"import sys, pickle; sys.path[:0] = {[str(path) for path in Path(__file__).parents[:2]]!r}\n"
        "task = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert (task._task, task.embedder.model) == ('sort', 'demo')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "pickled")], check=True)


def test_aliases_and_names_of_ones_own_are_taken() -> None:
    assert Sized(size="4B").embedder.model == "Qwen/Qwen3-Embedding-4B"
    assert Sized(model_id="demo", longest=99).embedder.arguments["max_tokens"] == 99
    made = Sized(model="demo", max_tokens=99)
    assert made.model_copy(update={"max_tokens": 98}).embedder.arguments["max_tokens"] == 98
    for twin in (copy.copy(made), pickle.loads(pickle.dumps(made)), Sized(**made.model_dump())):
        assert (twin.embedder.model, twin.max_tokens) == ("demo", 99)


def test_an_alias_beside_a_ready_component_contradicts_it() -> None:
    ready = Embedder("demo", max_tokens=100)
    assert Sized(embedder=ready, model_id="demo").max_tokens == 100
    with pytest.raises(ConfigurationError, match="together with max_tokens, and says otherwise"):
        Sized(embedder=ready, longest=99)


def test_unknown_names_stay_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Sized has no option sise; there are: .*model_id.*longest"):
        Sized(sise="sk-do-not-print-me")
    with pytest.raises(ValidationError, match="max_tokens"):
        Sized(longest=99, max_tokens=98)


class Lower(Qwen3Embeddings):
    """Overrides only what is sync."""

    def embed_query(self, text: str) -> list[float]:
        return super().embed_query(text.lower())

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return super().embed_documents([text.lower() for text in texts])


class Best(Qwen3Reranker):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return super().compress_documents(documents, query, callbacks)[:1]


async def test_async_calls_go_through_an_overridden_sync_method(embedder: Embedder, reranker: Any) -> None:
    lower = Lower(embedder=embedder)
    assert await lower.aembed_query("A") == lower.embed_query("A")
    assert await lower.aembed_documents(["A", "B"]) == lower.embed_documents(["a", "b"])
    best = Best(reranker=reranker)
    documents = [Document("a"), Document("b")]
    assert await best.acompress_documents(documents, "q") == best.compress_documents(documents, "q")
    assert len(await best.acompress_documents(documents, query="q", callbacks=None)) == 1
