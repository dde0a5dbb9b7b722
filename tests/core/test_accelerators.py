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
from qwen3_rag import ConfigurationError, Embedder
from qwen3_rag.backends.device import choice, exclusive, memory, out_of_memory
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


def test_a_gpu_that_ran_out_of_memory_gives_back_its_cache() -> None:
    def runs_out() -> torch.Tensor:
        raise torch.OutOfMemoryError("constructed")

    emptied: list[bool] = []
    with patch.object(out_of_memory, "empty_cuda_cache", lambda: emptied.append(True)):
        assert out_of_memory.attempt(runs_out, torch.device("cuda")) is None
    assert emptied == [True]


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


@pytest.mark.parametrize(
    ("table", "free"),
    [
        ("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 5 kB\nBuffers: 2 kB\n", 5 << 10),
        ("MemTotal: 9 kB\nMemFree: 1 kB\n", 4 << 30),
        (None, 4 << 30),
    ],
    ids=["a table", "a table without it", "no table"],
)
def test_without_a_container_the_system_is_asked_and_may_not_tell(
    table: str | None, free: int, tmp_path: Path
) -> None:
    def read(path: Path, *_: Any, **__: Any) -> str:
        if path == Path("/proc/meminfo") and table is not None:
            return table
        raise FileNotFoundError(path)

    with patch.object(memory, "_CGROUP", tmp_path), patch.object(Path, "read_text", read):
        assert memory.free_bytes(torch.device("cpu")) == free


QWEN3_0_6B = SimpleNamespace(
    hidden_size=1024, num_attention_heads=16, num_key_value_heads=8, head_dim=128, intermediate_size=3072
)


def test_a_token_of_the_0_6b_model_is_counted_with_70_kib_of_activations() -> None:
    assert memory.activation_bytes_per_token(QWEN3_0_6B, torch.bfloat16) == 70 << 10


@pytest.mark.parametrize(
    ("device", "room", "budget"),
    [
        ("cuda", 2000, 1000),
        ("cuda", 100, 512),
        ("cuda", 1 << 30, 65536),
        ("cpu", 2000, 1000),
        ("cpu", 1 << 30, 4096),
    ],
)
def test_a_batch_takes_half_of_the_free_memory_within_bounds(device: str, room: int, budget: int) -> None:
    with patch.object(memory, "free_bytes", lambda _: room * (70 << 10)):
        assert memory.choose_token_budget(QWEN3_0_6B, torch.bfloat16, torch.device(device)) == budget


def test_what_pytorch_keeps_of_a_gpu_s_memory_for_later_is_free() -> None:
    cuda = {"mem_get_info": (100, 1000), "memory_reserved": 30, "memory_allocated": 10}
    with patch.multiple(torch.cuda, **{name: lambda _, found=found: found for name, found in cuda.items()}):
        assert memory.free_bytes(torch.device("cuda")) == 120
    mps = {"recommended_max_memory": 100, "driver_allocated_memory": 30}
    with patch.multiple(torch.mps, **{name: lambda found=found: found for name, found in mps.items()}):
        assert memory.free_bytes(torch.device("mps")) == 70


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "best"), [(True, True, "cuda:1"), (False, True, "mps"), (False, False, "cpu")]
)
def test_without_a_name_the_best_device_is_taken(has_cuda: bool, has_mps: bool, best: str) -> None:
    with (
        patch.multiple(torch.cuda, is_available=lambda: has_cuda, current_device=lambda: 1),
        patch.object(torch.backends.mps, "is_available", lambda: has_mps),
    ):
        assert choice.choose_device(None) == torch.device(best)


def test_a_named_gpu_must_be_one_of_those_that_are_here() -> None:
    with patch.multiple(torch.cuda, is_available=lambda: True, device_count=lambda: 1):
        for name in ("cuda", "cuda:0", "cpu"):
            assert choice.choose_device(name) == torch.device(name)
        with pytest.raises(ConfigurationError, match=r"'cuda:1' is not available .* has: cpu$"):
            choice.choose_device("cuda:1")
        with pytest.raises(ConfigurationError, match=r"'meta' is not available .* has: cpu, cuda$"):
            choice.choose_device("meta")


@pytest.mark.parametrize(
    ("device", "capability", "flags", "dtype"),
    [
        ("cuda", (8, 0), [], torch.bfloat16),
        ("cuda", (7, 5), ["amx_bf16"], torch.float32),
        ("cpu", (9, 0), ["sse2", "avx512_bf16"], torch.bfloat16),
        ("cpu", (9, 0), ["amx_bf16"], torch.bfloat16),
        ("cpu", (9, 0), ["asimd", "bf16"], torch.bfloat16),
        ("cpu", (9, 0), ["sse2", "avx512f"], torch.float32),
        ("mps", (9, 0), ["bf16"], torch.float32),
    ],
)
def test_bfloat16_is_taken_where_the_hardware_multiplies_it(
    device: str, capability: tuple[int, int], flags: list[str], dtype: torch.dtype
) -> None:
    with (
        patch.object(torch.cuda, "get_device_capability", lambda _: capability),
        patch.object(choice, "_cpu_flags", lambda: frozenset(flags)),
    ):
        assert choice.choose_dtype("auto", torch.device(device)) == dtype
        assert choice.choose_dtype("float16", torch.device(device)) == torch.float16


@pytest.mark.parametrize("title", ["flags\t\t", "Features\t"])
def test_a_cpu_s_instruction_sets_are_read_on_linux_only(title: str) -> None:
    def read(*_: Any, **__: Any) -> str:
        return f"processor\t: 0\n{title}: sse2 bf16\nbugs\t: none\n"

    with patch.object(Path, "read_text", read):
        with patch("platform.system", lambda: "Linux"):
            assert choice._cpu_flags.__wrapped__() >= {"sse2", "bf16"}
        with patch("platform.system", lambda: "Windows"):
            assert choice._cpu_flags.__wrapped__() == frozenset()


def test_what_is_no_lack_of_memory_reaches_the_caller() -> None:
    def fails() -> torch.Tensor:
        raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"):
        out_of_memory.attempt(fails, torch.device("cpu"))


@pytest.mark.parametrize(
    ("device", "released"),
    [("cuda", "empty_cuda_cache"), ("mps", "empty_cache"), ("cpu", "return_freed_memory")],
)
def test_closing_gives_back_the_memory_of_its_device(device: str, released: str) -> None:
    done: list[str] = []
    with (
        patch.object(out_of_memory, "empty_cuda_cache", lambda: done.append("empty_cuda_cache")),
        patch.object(torch.mps, "empty_cache", lambda: done.append("empty_cache")),
        patch.object(out_of_memory, "return_freed_memory", lambda: done.append("return_freed_memory")),
    ):
        out_of_memory.release_memory(torch.device(device))
    assert done == [released]
