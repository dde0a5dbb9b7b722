"""Concurrent calls are merged, fail alone, can be cancelled, and always end."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder, EngineClosedError, Reranker, engines
from qwen3_rag.checkpoint import resolve_local_model
from qwen3_rag.engine import Engine
from qwen3_rag.settings import EngineSettings
from safetensors.torch import load_file, save_file
from sum_backend import POISON, SumBackend, ids, submit

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


@pytest.fixture
def backend() -> SumBackend:
    return SumBackend()


@pytest.fixture
def engine(backend: SumBackend) -> Any:
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    yield engine
    backend.gate.set()
    engine.close()


def blocked(engine: Engine, backend: SumBackend) -> Any:
    """Submit a call and wait until it keeps the backend busy."""
    backend.running.clear()
    future = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    return future


def test_calls_that_wait_are_merged_into_one_round(engine: Engine, backend: SumBackend) -> None:
    first = blocked(engine, backend)
    waiting = [submit(engine, [ids(n, n)]) for n in range(2, 42)]
    backend.gate.set()
    assert [future.result(30).values.tolist() for future in waiting] == [[2 * n] for n in range(2, 42)]
    assert first.result(30).values.tolist() == [1]
    assert len(backend.rounds) == 2


def test_a_bulk_call_does_not_hold_up_a_small_one(engine: Engine, backend: SumBackend) -> None:
    bulk = submit(engine, [ids(*[n] * 10) for n in range(1, 1000)])
    assert backend.running.wait(30)
    small = submit(engine, [ids(5000)])
    backend.gate.set()
    assert small.result(30).values.tolist() == [5000]
    assert [5000 in first for first in backend.rounds].index(True) <= 2
    assert bulk.result(30).values.tolist() == [10 * n for n in range(1, 1000)]


def test_a_failing_call_fails_alone(engine: Engine, backend: SumBackend) -> None:
    blocked(engine, backend)
    good, bad, other = submit(engine, [ids(3)]), submit(engine, [ids(POISON)]), submit(engine, [ids(4)])
    backend.gate.set()
    assert good.result(30).values.tolist() == [3]
    assert other.result(30).values.tolist() == [4]
    with pytest.raises(ArithmeticError, match="poison"):
        bad.result(30)
    assert submit(engine, [ids(9)]).result(30).values.tolist() == [9]


def test_a_cancelled_call_costs_nothing(engine: Engine, backend: SumBackend) -> None:
    blocked(engine, backend)
    unwanted, wanted = submit(engine, [ids(77)]), submit(engine, [ids(8)])
    assert unwanted.cancel()
    backend.gate.set()
    assert wanted.result(30).values.tolist() == [8]
    assert all(77 not in first for first in backend.rounds)
    with pytest.raises(CancelledError):
        unwanted.result(30)


def test_a_call_cancelled_between_rounds_is_dropped(engine: Engine, backend: SumBackend) -> None:
    bulk = submit(engine, [ids(*[n] * 60) for n in range(1, 100)])
    assert backend.running.wait(30)
    bulk.cancel()
    backend.gate.set()
    engine.load()
    assert sum(map(len, backend.rounds)) < 10


def test_closing_fails_what_waits_and_frees_the_model(backend: SumBackend) -> None:
    engine = Engine(lambda: backend)
    backend.gate.clear()
    running = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    waiting = submit(engine, [ids(2)])
    closer = threading.Thread(target=engine.close)
    closer.start()
    backend.gate.set()
    closer.join(30)
    assert running.result(30).values.tolist() == [1]
    with pytest.raises(EngineClosedError, match="closed before"):
        waiting.result(30)
    with pytest.raises(EngineClosedError, match="create a new"):
        submit(engine, [ids(3)])
    assert backend.closed


def test_a_failed_load_reaches_the_caller_and_can_be_repeated(backend: SumBackend) -> None:
    outcomes: list[Any] = [OSError("no disk"), backend]

    def load() -> SumBackend:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    engine = Engine(load)
    with pytest.raises(OSError, match="no disk"):
        engine.load()
    assert submit(engine, [ids(6)]).result(30).values.tolist() == [6]
    engine.close()


def test_threads_and_coroutines_get_the_sequential_results(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    texts = [f"text {i} " * (1 + i % 5) for i in range(60)]
    embedder, reranker = (
        Embedder(str(embedding_checkpoint), **OPTIONS),
        Reranker(str(reranking_checkpoint), **OPTIONS),
    )
    vectors, scores = embedder.embed_documents(texts), reranker.score("why?", texts)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: embedder.embed_documents([text])[0], texts))
    np.testing.assert_allclose(found, vectors, atol=1e-5)

    async def all_at_once() -> Any:
        heartbeats = 0
        done = False

        async def heart() -> None:
            nonlocal heartbeats
            while not done:
                heartbeats += 1
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(heart())
        result = await asyncio.gather(
            *(embedder.aembed_documents([text]) for text in texts),
            *(reranker.ascore("why?", [text]) for text in texts),
        )
        done = True
        await beating
        return result, heartbeats

    result, heartbeats = asyncio.run(all_at_once())
    np.testing.assert_allclose(np.concatenate(result[: len(texts)]), vectors, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(result[len(texts) :]), scores, atol=1e-5)
    assert heartbeats > 2


def test_async_twins_equal_their_sync_methods(embedding_checkpoint: Path, reranking_checkpoint: Path) -> None:
    embedder, reranker = (
        Embedder(str(embedding_checkpoint), **OPTIONS),
        Reranker(str(reranking_checkpoint), **OPTIONS),
    )
    texts = ["sun", "moon", "the sea " * 3000]

    async def twins() -> Any:
        return (
            await embedder.aembed_queries(texts, instruction="code", dimensions=32),
            await embedder.aembed_documents(texts, precision="ubinary"),
            await reranker.arerank("why?", texts, top_k=2),
            await reranker.ascore_pairs([("why?", text) for text in texts], instruction="code"),
        )

    queries, documents, ranked, scores = asyncio.run(twins())
    np.testing.assert_allclose(
        queries, embedder.embed_queries(texts, instruction="code", dimensions=32), atol=1e-5
    )
    np.testing.assert_array_equal(documents, embedder.embed_documents(texts, precision="ubinary"))
    assert [r.index for r in ranked] == [r.index for r in reranker.rerank("why?", texts, top_k=2)]
    np.testing.assert_allclose(scores, reranker.score("why?", texts, instruction="code"), atol=1e-5)


@pytest.mark.parametrize("component", [Embedder, Reranker])
def test_every_method_that_computes_has_an_async_twin_with_the_same_arguments(component: type[Any]) -> None:
    methods = {name: method for name, method in vars(component).items() if inspect.isfunction(method)}
    computing = {name for name, method in methods.items() if "progress" in inspect.signature(method).parameters}
    twins = {name for name in computing if inspect.iscoroutinefunction(methods[name])}
    assert twins == {f"a{name}" for name in computing - twins if not name.startswith("_")}
    for twin in twins:
        assert inspect.signature(methods[twin]) == inspect.signature(methods[twin[1:]])


def test_cancelling_a_task_cancels_its_work(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), **OPTIONS).load()

    async def cancelled() -> None:
        task = asyncio.create_task(embedder.aembed_documents([f"t{i}" for i in range(3000)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert embedder.embed_documents(["still there"]).shape == (1, 64)


def test_a_folder_that_was_saved_anew_is_another_model(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(embedding_checkpoint, folder)
    with Embedder(str(folder), **OPTIONS) as before:
        old = before.embed_documents(["a text"])
        weights = load_file(folder / "model.safetensors")
        save_file({name: weight * 1.5 for name, weight in weights.items()}, folder / "new.safetensors")
        (folder / "new.safetensors").replace(folder / "model.safetensors")
        with Embedder(str(folder), **OPTIONS) as after:
            new = after.embed_documents(["a text"])
        np.testing.assert_array_equal(before.embed_documents(["a text"]), old)
    with Embedder(str(folder), **OPTIONS) as alone:
        np.testing.assert_array_equal(alone.embed_documents(["a text"]), new)
    assert not np.allclose(old, new, atol=1e-3)


@pytest.mark.parametrize("changed", ["config.json", "1_Pooling/config.json"])
def test_a_changed_file_makes_another_model_though_others_have_its_name(
    changed: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    settings = EngineSettings("embedding", str(folder))
    before = resolve_local_model(settings)
    assert resolve_local_model(settings) == before
    (folder / "new.json").write_text((folder / changed).read_text())
    (folder / "new.json").replace(folder / changed)
    assert resolve_local_model(settings) != before


def test_a_relative_folder_is_the_one_that_was_there(
    embedding_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "other"):
        shutil.copytree(embedding_checkpoint, tmp_path / place / "model")
    monkeypatch.chdir(tmp_path / "one")
    with Embedder("model", **OPTIONS).load() as one, Embedder("./model", **OPTIONS).load() as same:
        assert one.backend is same.backend
        monkeypatch.chdir(tmp_path / "other")
        with Embedder("model", **OPTIONS).load() as other:
            assert one.backend is not other.backend


def test_an_engine_gets_the_place_of_its_folder_and_a_server_the_name_it_knows(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(embedding_checkpoint.parent)
    given = EngineSettings("embedding", embedding_checkpoint.name)
    assert resolve_local_model(given)[0].model == str(embedding_checkpoint)
    assert resolve_local_model(replace(given, backend="remote"))[0].model == embedding_checkpoint.name
    hub = EngineSettings("embedding", "Qwen/Qwen3-Embedding-0.6B")
    assert resolve_local_model(hub) == (hub, None)


def test_equal_settings_share_weights_until_the_last_one_closes(embedding_checkpoint: Path) -> None:
    options = {**OPTIONS, "token_budget": 777}
    first, second = (Embedder(str(embedding_checkpoint), **options).load() for _ in range(2))
    backend: Any = first.backend
    assert second.backend is backend
    model = weakref.ref(backend._model.decoder)
    first.close()
    second.embed_documents(["a"])
    second.close()
    del backend
    gc.collect()
    assert model() is None


def test_forgotten_components_free_their_weights(embedding_checkpoint: Path) -> None:
    before = len(engines._engines)
    embedder = Embedder(str(embedding_checkpoint), token_budget=778, **OPTIONS).load()
    assert len(engines._engines) == before + 1
    del embedder
    gc.collect()
    assert len(engines._engines) == before


def test_copies_and_pickles_carry_the_configuration_only(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    embedder = Embedder(str(embedding_checkpoint), dimensions=32, instruction="code", **OPTIONS)
    expected = embedder.embed_queries(["a"])
    data = pickle.dumps(embedder)
    assert len(data) < 2000
    for twin in (pickle.loads(data), copy.deepcopy(embedder), copy.copy(embedder)):
        np.testing.assert_array_equal(twin.embed_queries(["a"]), expected)
    assert len(pickle.dumps(Reranker(str(reranking_checkpoint), **OPTIONS).load())) < 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_make_its_own(embedding_checkpoint: Path) -> None:
    script = """
import os, sys, warnings
warnings.simplefilter("ignore")
from qwen3_rag import Embedder, ForkedProcessError
embedder = Embedder(sys.argv[1], dtype="float32", device="cpu")
embedder.embed_documents(["loaded"])
if os.fork() == 0:
    try:
        embedder.embed_documents(["child"])
    except ForkedProcessError as error:
        os._exit(0 if "spawn" in str(error) else 2)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    command = [sys.executable, "-c", script, str(embedding_checkpoint)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0


def test_the_interpreter_exits_cleanly_with_an_engine_open(embedding_checkpoint: Path) -> None:
    script = """
import sys
from qwen3_rag import Embedder
embedder = Embedder(sys.argv[1], dtype="float32", device="cpu")
print(embedder.embed_documents(["a"]).shape)
"""
    command = [sys.executable, "-c", script, str(embedding_checkpoint)]
    run = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "(1, 64)"), run.stderr
