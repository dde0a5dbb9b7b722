"""An async method does what its sync twin does, if a subclass overrides that alone."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from qwen3_rag.overriding import follow_overrides


class Base:
    def __init_subclass__(cls) -> None:
        follow_overrides(cls, {"run": "arun", "absent": "aabsent"})

    def run(self, text: str) -> str:
        return f"sync {text}"

    async def arun(self, text: str) -> str:
        return f"async {text}"


class SyncOnly(Base):
    def run(self, text: str, mark: str = "!") -> str:
        return super().run(text) + mark


def call(adapter: Any, *args: Any, **kwargs: Any) -> Any:
    return asyncio.run(adapter.arun(*args, **kwargs))


def test_the_async_twin_calls_what_was_overridden() -> None:
    assert call(SyncOnly(), "a") == "sync a!"
    assert call(SyncOnly(), text="a", mark="?") == "sync a?"


def test_it_looks_like_the_sync_method() -> None:
    assert inspect.signature(SyncOnly.arun) == inspect.signature(SyncOnly.run)
    assert inspect.iscoroutinefunction(SyncOnly.arun)
    assert (SyncOnly.arun.__name__, SyncOnly.arun.__qualname__) == ("arun", "SyncOnly.arun")


def test_it_runs_in_another_thread() -> None:
    class Where(Base):
        def run(self, _: str) -> Any:
            return threading.current_thread()

    assert call(Where(), "a") is not threading.current_thread()


def test_an_async_method_that_is_overridden_too_stays() -> None:
    class Both(SyncOnly):
        async def arun(self, text: str) -> str:
            return f"own {text}"

        def run(self, text: str, mark: str = "!") -> str:
            return text + mark

    class AsyncOnly(SyncOnly):
        async def arun(self, text: str) -> str:
            return "own " + await super().arun(text)

    assert call(Both(), "a") == "own a"
    assert call(AsyncOnly(), "a") == "own sync a!"


def test_a_later_override_goes_before_an_earlier_async_one() -> None:
    class AsyncFirst(Base):
        async def arun(self, text: str) -> str:
            return f"own {text}"

    class Later(AsyncFirst):
        def run(self, text: str) -> str:
            return f"later {text}"

    class Mixin:
        def run(self, text: str) -> str:
            return f"mixed {text}"

    class Mixed(Mixin, AsyncFirst):
        pass

    assert call(AsyncFirst(), "a") == "own a"
    assert call(Later(), "a") == "later a"
    assert call(Mixed(), "a") == "mixed a"


def test_a_class_that_overrides_nothing_keeps_its_methods() -> None:
    class Plain(Base):
        pass

    assert Plain.arun is Base.arun
