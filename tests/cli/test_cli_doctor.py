"""`doctor` passes here, and says so when numbers are wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command import Invoke
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.device import choice
from qwen3_rag.checkpoint import DEMO_MODEL
from qwen3_rag.cli import doctor, library_bars, self_test
from qwen3_rag.cli.self_test import Check
from qwen3_rag.plugins import Plugin


def test_doctor_passes_and_reports_what_it_found(invoke: Invoke) -> None:
    run = invoke("doctor", "--device", "cpu", "--json")
    assert run.code == 0, run.out
    report = json.loads(run.out)
    assert report["passed"] is True
    assert [check["name"] for check in report["self_test"]][:2] == ["embedding", "reranking"]
    assert all(check["largest_difference"] <= 1e-5 for check in report["self_test"][:2])
    assert report["versions"]["torch"]
    assert report["attention"] == "sdpa per segment"


@pytest.mark.parametrize("prompts", [{"query": "Find: ", "document": "Text: "}, {}], ids=["saved", "none"])
def test_doctor_tests_the_checkpoints_it_is_given_with_their_own_prompts(
    prompts: dict[str, str],
    invoke: Invoke,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    run = invoke("doctor", "--device", "cpu", "--model", folder, "--reranker", reranking_checkpoint)
    assert run.code == 0, run.out
    assert run.out.count("passed") >= 2


@pytest.mark.parametrize("is_right", [True, False])
def test_the_element_type_that_is_used_is_tested_too(
    is_right: bool, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: True)
    right = Embedder.embed_documents

    def documents(self: Embedder, texts: Any) -> Any:
        vectors = right(self, texts)
        if not is_right and self.arguments["dtype"] == "bfloat16":
            vectors[-1] = vectors[0]
        return vectors

    monkeypatch.setattr(Embedder, "embed_documents", documents)
    run = invoke("doctor", "--device", "cpu", "--json")
    assert run.code == (0 if is_right else 1), run.out
    outcomes = {check["name"]: check["passed"] for check in json.loads(run.out)["self_test"]}
    assert outcomes == {"embedding": True, "reranking": True, "embedding in bfloat16": is_right}


def test_doctor_tests_rerankers_converted_to_classification(invoke: Invoke, tmp_path: Path) -> None:
    from checkpoints import Qwen3ForSequenceClassification, make_checkpoint, small_tokenizer

    tokenizer = small_tokenizer(appends_end_of_text=False)
    folder = make_checkpoint(tmp_path, tokenizer, architecture=Qwen3ForSequenceClassification)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))  # not all name one
    run = invoke("doctor", "--device", "cpu", "--reranker", folder)
    assert run.code == 0, run.out


def test_wrong_vectors_fail_the_check(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Embedder.embed_documents
    monkeypatch.setattr(Embedder, "embed_documents", lambda self, texts: right(self, texts) * 1.001)
    run = invoke("doctor", "--device", "cpu")
    assert run.code == 1
    assert "self-test embedding: FAILED" in run.out
    assert "self-test reranking: passed" in run.out


@pytest.mark.parametrize("error", [1e-3, -1e-3])
def test_wrong_scores_fail_the_check_whether_they_are_too_high_or_too_low(
    error: float, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Reranker.score_pairs
    monkeypatch.setattr(Reranker, "score_pairs", lambda self, pairs: right(self, pairs) + error)
    check = self_test.check_reranker(str(reranking_checkpoint), torch.device("cpu"))
    assert not check.passed
    assert check.largest_difference == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize(("device", "most"), [("cpu", 1e-5), ("cuda", 1e-4), ("mps", 1e-4)])
def test_devices_that_add_in_another_order_may_differ_ten_times_as_much(device: str, most: float) -> None:
    assert self_test.tolerance(torch.device(device)) == most
    assert Check("embedding", most, most).passed
    assert not Check("embedding", 1.01 * most, most).passed


@pytest.mark.parametrize(
    ("model", "reranker", "hidden"), [(DEMO_MODEL, DEMO_MODEL, True), (DEMO_MODEL, "m", False)]
)
def test_bars_are_hidden_unless_a_model_may_have_to_be_downloaded(
    model: str, reranker: str, hidden: bool, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding: list[bool] = []
    monkeypatch.setattr(library_bars, "hide_library_bars", lambda: hiding.append(True))
    for check in ("check_embedder", "check_reranker"):
        monkeypatch.setattr(self_test, check, lambda *_: Check("any", 0.0, 1e-5))
    assert invoke("doctor", "--device", "cpu", "--model", model, "--reranker", reranker).code == 0
    assert hiding == [True] * hidden


def test_each_device_is_told_with_what_matters_of_it(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA H200", major=9, minor=0, total_memory=139 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(choice, "computes_bfloat16", lambda _: False)
    monkeypatch.setattr(doctor, "_self_test", lambda *_: [])
    *cards, mps, cpu = json.loads(invoke("doctor", "--device", "cpu", "--json").out)["devices"]
    capabilities = "NVIDIA H200, compute capability 9.0, 139 GiB"
    assert cards == [f"cuda:0: {capabilities}", f"cuda:1: {capabilities}"]
    assert mps.startswith("mps: ")
    assert cpu.startswith("cpu: ")
    assert cpu.endswith("does not compute bfloat16")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_is_read_tells_what_is_there_what_is_not_and_how_each_check_went(
    encoding: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = [
        Plugin("qwen3_rag.backends", name, "m:C", "qwen3-rag", installed)
        for name, installed in (("there", True), ("away", False))
    ]
    versions = {"torch": "2.13.0", "vllm": None, "pyarrow": None}
    machine = doctor.Machine(versions, ["cpu: an 8-core µ"], "cpu", "bfloat16", "sdpa", plugins)
    checks = [
        Check("embedding", 2e-6, 1e-5),
        Check("reranking", 2e-5, 1e-5),
        Check("embedding in bfloat16", None, 1e-3, "lost"),
    ]
    monkeypatch.setattr(doctor, "_examine", lambda _: machine)
    monkeypatch.setattr(doctor, "_self_test", lambda *_: checks)
    run = invoke("doctor", encoding=encoding)
    assert run.code == 1
    table, _, rest = run.out.partition("not installed: ")
    assert "2.13.0" in table
    assert "vllm" not in table
    absent, device, used, there, away, *outcomes = rest.splitlines()
    assert absent == "vllm, pyarrow"
    assert device.startswith("cpu: an 8-core")
    assert "cpu in bfloat16" in used
    assert "there" in there
    assert "not installed" not in there
    assert "away (not installed)" in away
    assert [line.split(": ")[1] for line in outcomes] == ["passed", "FAILED", "FAILED"]
    assert "difference 2.0e-05, at most 1e-05" in outcomes[1]


def test_a_crash_inside_the_self_test_is_a_failed_check(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("kernel lost")

    monkeypatch.setattr(Reranker, "score_pairs", broken)
    run = invoke("doctor", "--device", "cpu")
    assert run.code == 1
    assert "FAILED: RuntimeError: kernel lost" in run.out


def test_a_model_that_is_not_there_is_bad_usage(invoke: Invoke, tmp_path: Path) -> None:
    run = invoke("doctor", "--device", "cpu", "--model", tmp_path / "none")
    assert run.code == 2
    assert "no such folder" in run.err


def test_a_device_that_is_not_there_is_bad_usage(invoke: Invoke) -> None:
    run = invoke("doctor", "--device", "cuda:99")
    assert run.code == 2
    assert "not available" in run.err
