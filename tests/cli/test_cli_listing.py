"""`models`, `plugins`, help, and what they do not import."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest
from command import Invoke
from qwen3_rag import PUBLISHED_MODELS, __version__
from qwen3_rag.cli import listing
from qwen3_rag.plugins import Plugin, all_plugins


def test_models_shows_every_published_model(invoke: Invoke) -> None:
    run = invoke("models")
    assert run.code == 0
    for model in PUBLISHED_MODELS:
        assert model.name in run.out


def cells(line: str) -> list[str]:
    """What stands in a row of a table."""
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_a_row_tells_a_models_kind_and_shape(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = [cells(line) for line in invoke("models").out.splitlines()]
    for model in PUBLISHED_MODELS:
        shape = map(str, (model.layers, model.dimensions, model.context))
        assert [model.name, model.kind, *shape] in rows


def test_a_row_tells_whether_a_plugin_can_be_used(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = [
        Plugin("qwen3_rag.backends", "here", "some.module:create", "some-package", True),
        Plugin("qwen3_rag.adapters", "away", "other.module:Class", "other-package", False),
    ]
    monkeypatch.setattr(listing, "all_plugins", lambda: found)
    rows = [cells(line) for line in invoke("plugins").out.splitlines()]
    assert ["backend", "here", "yes", "some-package", "some.module:create"] in rows
    assert ["adapter", "away", "not installed", "other-package", "other.module:Class"] in rows


def test_models_as_json_is_the_list_of_models(invoke: Invoke) -> None:
    content = json.loads(invoke("models", "--json").out)
    assert [entry["name"] for entry in content] == [model.name for model in PUBLISHED_MODELS]
    assert content[0]["dimensions"] == 1024


def test_plugins_lists_the_transformers_backend_as_installed(invoke: Invoke) -> None:
    assert "transformers" in invoke("plugins").out
    content = json.loads(invoke("plugins", "--json").out)
    backends = {entry["name"]: entry for entry in content if entry["group"] == "qwen3_rag.backends"}
    assert backends["transformers"]["installed"] is True


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models"], ["plugins"], ["embed", "--help"], ["doctor", "--help"]]
)
def test_help_and_lists_import_neither_torch_nor_transformers(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from qwen3_rag.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as error: assert not error.code, error.code\n"
        "loaded = {'torch', 'transformers', 'pyarrow'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_usage_exits_with_2(invoke: Invoke) -> None:
    assert invoke("embed").code == 2
    assert invoke("no-such-command").code == 2


def test_a_piped_list_of_plugins_has_every_name_whole(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = invoke("plugins").out
    cells = {cell.strip() for line in shown.splitlines() for cell in line.split("│")}
    assert {plugin.name for plugin in all_plugins()} <= cells
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version_is_the_packages(invoke: Invoke) -> None:
    assert invoke("--version").out == f"qwen3-rag {__version__}\n"


COMMAND = [sys.executable, "-m", "qwen3_rag.cli"]


def test_a_reader_that_has_gone_is_no_error_to_tell_of() -> None:
    """As in `qwen3-rag models --json | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with os.fdopen(writer, "wb") as pipe:
        run = subprocess.run(
            [*COMMAND, "models", "--json"], stdout=pipe, stderr=subprocess.PIPE, env=unbuffered, check=False
        )
    assert run.stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
def test_streams_may_be_closed() -> None:
    serve = shlex.join([*COMMAND, "serve", "Qwen/Qwen3-Embedding-0.6B"])
    assert subprocess.run(["sh", "-c", f"{serve} <&- >&- 2>&-"], check=False).returncode == 0
    rerank = shlex.join([*COMMAND, "rerank", "query", "-", "--model", "demo", "--json"])
    run = subprocess.run(["sh", "-c", f"{rerank} <&-"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["ranking"] == []
