"""What is done for devices that are not here, tried on those that are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder
from qwen3_rag.backends.device import memory
from qwen3_rag.backends.device.turns import taking_turns
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


def test_on_mps_one_thread_works_at_a_time_and_elsewhere_all() -> None:
    def work(device: str) -> bool:
        with taking_turns(device):
            inside.append(device)
            try:
                return together.wait(0.2) == 0
            except threading.BrokenBarrierError:
                return False
            finally:
                inside.remove(device)

    inside: list[str] = []
    for device, meet in (("mps", False), ("cuda", True), ("cpu", True)):
        together = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            assert any(pool.map(work, [device] * 2)) == meet


def test_loading_running_and_closing_all_take_their_turn(embedding_checkpoint: Path) -> None:
    taken: list[str] = []
    others = set(threading.enumerate())  # of components that other tests left open

    @contextmanager
    def noted(device: str) -> Any:
        if threading.current_thread().name.startswith(ENGINE) and threading.current_thread() not in others:
            taken.append(device)
        yield

    with patch.object(backend, "taking_turns", noted):
        with Embedder(str(embedding_checkpoint), device="cpu") as embedder:
            embedder.load()
            assert taken == ["cpu"]
            embedder.embed_documents(["a"])
            assert taken == ["cpu"] * 2
        assert taken == ["cpu"] * 3


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
