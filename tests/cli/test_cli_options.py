"""Options out of range are bad usage, told of before anything is read."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Invoke
from embedding_job import SMALL, StoppedError
from qwen3_rag import Embedder, Reranker
from qwen3_rag.cli.options import one_or_several
from transformers.utils.logging import enable_progress_bar

OUT_OF_RANGE = [
    ("embed", "--chunk-size", 0),
    ("embed", "--max-tokens", 0),
    ("embed", "--token-budget", 0),
    ("embed", "--dtype", "float8"),
    ("embed", "--precision", "int4"),
    ("embed", "--role", "passage"),
    ("rerank", "--top-k", -1),
    ("rerank", "--max-tokens", 0),
    ("serve", "--port", 0),
    ("serve", "--port", 65536),
    ("serve", "--max-tokens", 0),
    ("serve", "--tensor-parallel", 0),
    ("serve", "--data-parallel", 0),
    ("demo", "--passages", 0),
]


@pytest.mark.parametrize(("command", "option", "value"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_bad_usage(
    invoke: Invoke, tmp_path: Path, command: str, option: str, value: object
) -> None:
    arguments = {
        "embed": (tmp_path / "none.txt", tmp_path / "v.npy"),
        "rerank": ("query", tmp_path / "none.txt"),
        "serve": ("none/none",),
        "demo": (),
    }[command]
    run = invoke(command, *arguments, option, value)
    assert run.code == 2
    assert f"Invalid value for '{option}'" in run.err


def test_parts_may_be_of_one_row(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path, expected: np.ndarray
) -> None:
    output = tmp_path / "v.npy"
    run = invoke("embed", lines, output, "--model", embedding_checkpoint, *SMALL, "--chunk-size", 1)
    assert run.code == 0, run.err
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)


def test_one_device_is_a_name_and_several_are_a_list() -> None:
    assert one_or_several(None) is None
    assert one_or_several([]) is None
    assert one_or_several(["cpu"]) == "cpu"
    assert one_or_several(["cuda:0", "cuda:1"]) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("given", ["{", "[]", '"secret"', "7"])
def test_model_kwargs_that_are_no_object_are_refused_and_not_quoted(
    invoke: Invoke, lines: Path, tmp_path: Path, given: str
) -> None:
    run = invoke("embed", lines, tmp_path / "v.npy", "--model", "demo", "--model-kwargs", given)
    assert run.code == 2
    assert "error: --model-kwargs must be a JSON object" in run.err
    assert "secret" not in run.err


@pytest.mark.parametrize("command", ["embed", "rerank"])
def test_hub_and_revision_are_where_the_model_comes_from(
    invoke: Invoke,
    lines: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """No network here, so the hub's library is a stand-in."""
    folder = embedding_checkpoint if command == "embed" else reranking_checkpoint
    asked = []

    def snapshot_download(model_id: str, revision: str | None = None, **_: object) -> str:
        asked.append((model_id, revision))
        return str(folder)

    module: Any = types.ModuleType("modelscope")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", module)
    arguments = (lines, tmp_path / "v.npy") if command == "embed" else ("query", lines)
    model = ("--model", "someone/some-model", "--hub", "modelscope", "--revision", "v2")
    run = invoke(command, *arguments, *model, "--dtype", "float32")
    assert run.code == 0, run.err
    assert set(asked) == {("someone/some-model", "v2")}


@pytest.mark.parametrize("command", ["embed", "rerank"])
def test_quiet_hides_the_bars_of_libraries_too(
    invoke: Invoke, lines: Path, tmp_path: Path, command: str
) -> None:
    enable_progress_bar()  # which another test of this process may have hidden
    arguments = (lines, tmp_path / "v.npy") if command == "embed" else ("query", lines)
    run = invoke(command, *arguments, "--model", "demo", "--device", "cpu", "--quiet")
    assert (run.code, run.err) == (0, "")


@pytest.mark.parametrize("command", ["embed", "rerank"])
def test_options_of_models_reach_them(
    invoke: Invoke, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    made: list[dict[str, Any]] = []

    def noted(self: Embedder | Reranker, *_: object, **__: object) -> None:
        made.append(self.arguments)
        raise StoppedError

    monkeypatch.setattr(Embedder, "embed", noted)
    monkeypatch.setattr(Reranker, "evaluate", noted)
    arguments = (lines, tmp_path / "v.npy") if command == "embed" else ("query", lines)
    with pytest.raises(StoppedError):
        invoke(
            *(command, *arguments, "--model", "demo", "--device", "cpu", "--dtype", "float32"),
            *("--max-tokens", 999, "--token-budget", 600, "--revision", "v1", "--hub", "modelscope"),
            *("--model-kwargs", '{"compile": false}'),
        )
    given = {
        "model": "demo",
        "backend": "transformers",
        "device": "cpu",
        "dtype": "float32",
        "max_tokens": 999,
        "token_budget": 600,
        "revision": "v1",
        "hub": "modelscope",
        "model_kwargs": {"compile": False},
    }
    assert {name: made[0][name] for name in given} == given


def test_a_question_that_is_not_utf_8_is_bad_usage(invoke: Invoke) -> None:
    run = invoke("demo", "--question", "fine", "--question", "bad\udcff")
    assert run.code == 2
    assert "Invalid value for '--question': not UTF-8 at character 4" in run.err
