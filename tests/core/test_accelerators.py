"""What is done for devices that are not here, tried on those that are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder
from qwen3_rag.backends.device import exclusive, memory
from qwen3_rag.backends.transformers import backend
from qwen3_rag.backends.transformers.layout import upload

ENGINE = "qwen3-rag-engine"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_copy_of_memory_that_is_not_pinned_is_waited_for(device: str) -> None:
    asked: list[dict[str, Any]] = []
    to = torch.Tensor.to

    def noted(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        asked.append(options)
        return to(tensor, *arguments, **options)

    with patch.object(torch.Tensor, "to", noted):
        upload({"ids": np.arange(3, dtype=np.int32)}, torch.device(device))
    assert [options.get("non_blocking", False) for options in asked] == [False]


@pytest.mark.parametrize(
    ("turn", "device", "meet"),
    [
        (exclusive.load, "mps", False),
        (exclusive.load, "cuda", True),
        (exclusive.load, "cpu", True),
        (exclusive.compute, "mps", False),
        (exclusive.compute, "cuda", True),
        (exclusive.compute, "cpu", False),
        (exclusive.unregister, "mps", False),
        (exclusive.unregister, "cuda", True),
    ],
)
def test_two_threads_meet_where_a_device_is_for_more_than_one(turn: Any, device: str, meet: bool) -> None:
    def work() -> None:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)
            met.append(device)

    together, met = threading.Barrier(2), list[str]()
    exclusive.register(device)  # for `unregister`
    exclusive.register(device)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: turn(device, work), range(2)))
    assert bool(met) == meet
    if turn is not exclusive.unregister:
        exclusive.unregister(device, lambda: None)
        exclusive.unregister(device, lambda: None)


def test_loading_running_and_closing_all_take_their_turn(embedding_checkpoint: Path) -> None:
    taken: list[tuple[str, str]] = []
    others = set(threading.enumerate())  # of components that other tests left open

    def noting(step: str) -> Callable[..., Any]:
        def noted(device: str, work: Callable[[], Any] = lambda: None) -> Any:
            thread = threading.current_thread()
            if thread.name.startswith(ENGINE) and thread not in others:
                taken.append((step, device))
            return work()

        return noted

    instead = SimpleNamespace(**{step: noting(step) for step in ("load", "register", "compute", "unregister")})
    with (
        patch.object(backend, "exclusive", instead),
        Embedder(str(embedding_checkpoint), device="cpu") as embedder,
    ):
        embedder.load()
        embedder.embed_documents(["a"])
        assert taken == [("load", "cpu"), ("register", "cpu"), ("compute", "cpu")]
    assert taken[3:] == [("unregister", "cpu")]


def test_the_cache_of_a_gpu_is_not_emptied_while_a_graph_is_recorded() -> None:
    emptied = threading.Event()
    with patch.object(torch.cuda, "empty_cache", emptied.set), ThreadPoolExecutor(1) as pool:
        with memory.CAPTURING:
            done = pool.submit(memory.empty_cuda_cache)
            assert not emptied.wait(0.1)
        done.result(60)
    assert emptied.is_set()


@pytest.mark.parametrize(
    ("most", "used", "files", "free"),
    [
        (4 << 30, 3 << 30, 0, 1 << 30),
        (4 << 30, 3 << 30, 2 << 30, 3 << 30),
        (None, 3 << 30, 0, 1 << 40),
        (4 << 30, 3 << 30, None, 1 << 40),
    ],
    ids=["a limit", "a checkpoint was read", "no limit", "another form"],
)
def test_a_container_s_memory_is_free_where_only_files_lie_in_it(
    most: int | None, used: int, files: int | None, free: int, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text("max" if most is None else str(most))
    (tmp_path / "memory.current").write_text(str(used))
    (tmp_path / "memory.stat").write_text("anon 1\n" + ("" if files is None else f"inactive_file {files}\n"))
    read = Path.read_text

    def plenty(path: Path, *arguments: Any, **options: Any) -> str:
        if path == Path("/proc/meminfo"):
            return f"MemAvailable: {1 << 30} kB\n"
        return read(path, *arguments, **options)

    with patch.object(memory, "_CGROUP", tmp_path), patch.object(Path, "read_text", plenty):
        assert memory.free_bytes(torch.device("cpu")) == free
