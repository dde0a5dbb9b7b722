"""The benchmarks' own rules, without a model: what fails, what does not fit, what is timed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import floor, gpu, peers, runner, tables, truth
from benchmarks.comparing import Comparison
from benchmarks.parity import Truth
from benchmarks.run_setup import Setup
from benchmarks.ways import OURS, Outcome, Peer, Run
from benchmarks.workloads import Result, Sizes

VECTORS = np.eye(4, dtype=np.float32)
ITEMS = ["one", "two", "three", "four"]
CPU = torch.device("cpu")


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither loads peers nor measures the machine."""
    one = floor.Floor(1.0, 1.0, 1.0, 1.0)
    monkeypatch.setattr(runner, "measure_floor", lambda *_: one)
    monkeypatch.setattr(peers, "load", lambda *_: ([], []))
    monkeypatch.setattr(runner, "truth_of", lambda *_: None)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.usefixtures("without_models")
def test_one_workload_that_fails_keeps_no_other_from_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(runner.WITH_PEERS["embedding"], "bulk", raising(ValueError("no such thing")))
    monkeypatch.setitem(runner.WITH_PEERS["embedding"], "uniform", lambda _: Result({"ways": []}))
    monkeypatch.setitem(runner.WITH_PEERS["reranking"], "rerank", lambda _: Result({"ways": []}))
    folder = tmp_path / "new" / "folder"
    chosen = ["--size", "0.6B,4B", "--workloads", "bulk,uniform,rerank"]

    with pytest.raises(SystemExit, match=r"0\.6B: bulk; 4B: bulk"):
        gpu.main([*chosen, "--device", "cpu", "--folder", str(folder)])

    for size in ("0.6B", "4B"):
        written = json.loads((folder / f"gpu-{size}.json").read_text())
        assert list(written["workloads"]) == ["bulk", "uniform", "rerank"]
    assert "bulk: FAILED: ValueError: no such thing" in capsys.readouterr().out


@pytest.mark.usefixtures("without_models")
def test_where_ours_cannot_be_loaded_the_other_kind_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "truth_of", lambda kind, _: None if kind == "reranking" else 1 / 0)
    monkeypatch.setitem(runner.WITH_PEERS["reranking"], "rerank", lambda _: Result({"ways": []}))
    setup = Setup("0.6B", 1, CPU, torch.float32, tmp_path)
    sizes = Sizes(1, 1, 1, 1, 1, 1, 1, 1)

    results = runner.run(setup, sizes, ["bulk", "rerank"], [], 1.0, lambda _: None)

    assert tables.failures(results) == ["bulk"]
    assert list(results["workloads"]) == ["bulk", "rerank"]


def peer(name: str, **settings: Run) -> Peer:
    return Peer(name, settings)


def taking(seconds: float) -> Run:
    return lambda items: Outcome(VECTORS[: len(items)], seconds)


def comparison() -> Comparison:
    return Comparison("embedding", lambda items: Truth(VECTORS[: len(items)]), torch.float32, 1, 1.0)


def test_a_sweep_ends_where_memory_runs_out() -> None:
    full = raising(torch.OutOfMemoryError("CUDA out of memory"))
    theirs = peer("theirs", small=taking(2.0), middle=taking(1.0), large=full)

    found = comparison().run([peer(OURS, default=taking(1.0)), theirs], ITEMS, sweep=True)

    assert found["sweeps"] == {"theirs": {"small": 2.0, "middle": 1.0}}
    assert [way["setting"] for way in found["ways"]] == ["default", "middle"]


def test_a_peer_that_fails_is_left_out() -> None:
    theirs = peer("theirs", default=raising(TypeError("unexpected keyword")))

    found = comparison().run([peer(OURS, default=taking(1.0)), theirs], ITEMS)

    assert [way["peer"] for way in found["ways"]] == [OURS]
    assert found["wrong"]["theirs"]["failed"] == "TypeError: unexpected keyword"


def test_every_timed_run_follows_a_short_one_that_is_not_timed() -> None:
    """A process that has rested is slow at first."""
    asked: list[int] = []

    def run(items: Sequence[Any]) -> Outcome:
        asked.append(len(items))
        return Outcome(VECTORS[: len(items)], float(asked[-1]))

    rounds = Comparison("embedding", lambda items: Truth(VECTORS[: len(items)]), torch.float32, 2, 100.0)
    found = rounds.run([peer(OURS, default=run)], ITEMS)

    checked, *timed = asked
    assert checked == len(ITEMS)
    assert timed == [1, len(ITEMS)] * 2
    assert found["ways"][0]["extremes"] == [len(ITEMS), len(ITEMS)]


def test_a_peer_that_is_not_swept_comes_as_warm_to_its_first_round() -> None:
    asked: list[int] = []

    def run(items: Sequence[Any]) -> Outcome:
        asked.append(len(items))
        return Outcome(VECTORS[: len(items)], 1.0)

    comparison().run([peer(OURS, default=run)], ITEMS, sweep=True)

    assert asked == [len(ITEMS), len(ITEMS), 1, len(ITEMS)]


def test_that_we_fail_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"our own .*TypeError: no"):
        comparison().run([peer(OURS, default=raising(TypeError("no")))], ITEMS)


@pytest.mark.parametrize(("device", "together"), [("cpu", 1), ("cuda", 50)])
def test_on_a_gpu_many_products_are_timed_between_two_waits(
    device: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    at_waits: list[int] = []
    monkeypatch.setattr(floor, "_wait_for", lambda _: at_waits.append(len(calls)))
    monkeypatch.setattr(time, "perf_counter", lambda: 3.0 * len(calls))

    seconds = floor._seconds(lambda: calls.append(1), torch.device(device))

    assert seconds == 3.0
    assert at_waits[1] - at_waits[0] == together


@pytest.mark.parametrize(("gigabytes", "expected"), [(141, "cuda"), (1e-6, "cpu")])
def test_weights_of_the_truth_wait_on_the_host_where_they_are_large(
    gigabytes: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, int(gigabytes * 1e9)))

    place = truth._place_between_checks(torch.nn.Linear(64, 64), torch.device("cuda"))

    assert place.type == expected
