"""vLLM engines and servers, started once per run. Needs vLLM; its CPU build will do (see tox.ini).

Checkpoints have the demo pair's vocabulary where that shows nothing less: vLLM takes six seconds to read the
published one in each of its processes. Their heads are 32 wide, because vLLM's attention on CPUs has no
kernel for the narrower ones of the other tests' checkpoints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = [] if find_spec("vllm") else ["test_*"]
# The three frameworks' adapters behind one shape.
sys.path.insert(0, str(Path(__file__).parents[1] / "together"))
# The documents' code blocks.
sys.path.append(str(Path(__file__).parents[1] / "docs"))
# Read by vLLM when it is imported, which happens on first use.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Several engines on few cores, which must not all choose the same one.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

FLOAT32: dict[str, Any] = {"dtype": "float32", "device": "cpu"}

EARLY = ("embedding_server", "reranking_server", "apart", "unguarded", "printed_script", "printed_options")
"""Fixtures that start processes and do not wait for them."""


@pytest.fixture(scope="session", autouse=True)
def _processes_start_while_others_are_tested(request: pytest.FixtureRequest) -> None:
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in EARLY:
        if name in wanted:
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hidden size 128."""
    from checkpoints import Qwen3Model, Shape, make_checkpoint, small_tokenizer

    folder = tmp_path_factory.mktemp("vllm-qwen3-embedding")
    tokenizer = small_tokenizer(appends_end_of_text=True)
    return make_checkpoint(folder, tokenizer, architecture=Qwen3Model, shape=Shape(hidden=128, head_dim=32))


@pytest.fixture(scope="session")
def reranking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied head."""
    from checkpoints import Shape, make_checkpoint, small_tokenizer

    folder = tmp_path_factory.mktemp("vllm-qwen3-reranker")
    tokenizer = small_tokenizer(appends_end_of_text=False)
    return make_checkpoint(folder, tokenizer, shape=Shape(hidden=128, head_dim=32), seed=3)


@pytest.fixture(scope="session")
def untied_reranking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published vocabulary, and a head of its own as the 8B model has."""
    from checkpoints import Shape, genuine_tokenizer, make_checkpoint

    folder = tmp_path_factory.mktemp("vllm-qwen3-reranker-8b")
    tokenizer = genuine_tokenizer(appends_end_of_text=False)
    return make_checkpoint(folder, tokenizer, shape=Shape(head_dim=32), seed=5, tied=False)


@pytest.fixture(scope="session")
def engines_of_this_process(embedding_folder: Path, reranking_folder: Path) -> Iterator[tuple[Any, Any]]:
    """Two components that keep their engines open for the whole run."""
    from qwen3_rag import Embedder, Reranker

    with (
        Embedder(str(embedding_folder), backend="vllm", **FLOAT32) as embedder,
        Reranker(str(reranking_folder), backend="vllm", **FLOAT32) as reranker,
    ):
        yield embedder.load(), reranker.load()


@pytest.fixture(scope="session")
def embedders(engines_of_this_process: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """By vLLM and by Transformers."""
    from qwen3_rag import Embedder

    by_vllm, _ = engines_of_this_process
    with Embedder(by_vllm.model, **FLOAT32) as by_transformers:
        yield by_vllm, by_transformers


@pytest.fixture(scope="session")
def rerankers(engines_of_this_process: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """By vLLM and by Transformers."""
    from qwen3_rag import Reranker

    _, by_vllm = engines_of_this_process
    with Reranker(by_vllm.model, **FLOAT32) as by_transformers:
        yield by_vllm, by_transformers


@pytest.fixture(scope="session")
def embedding_server(embedding_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A starting server; `wait_until_ready` before use."""
    from vllm_processes import serving

    with serving(embedding_folder, "embedding", tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def reranking_server(reranking_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A starting server; `wait_until_ready` before use."""
    from vllm_processes import serving

    with serving(reranking_folder, "reranking", tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def apart(
    embedding_folder: Path, reranking_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Path]]:
    """The running script of engines in processes of their own, and the file of its results."""
    from vllm_processes import running

    folder = tmp_path_factory.mktemp("apart")
    script = Path(__file__).with_name("vllm_apart_script.py")
    arguments = (script, embedding_folder, reranking_folder, folder / "results.json")
    with running(folder / "log", *map(str, arguments), VLLM_ENABLE_V1_MULTIPROCESSING="1") as process:
        yield process, folder / "results.json"


@pytest.fixture(scope="session")
def unguarded(embedding_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The running script that lacks a guard."""
    from vllm_processes import running

    script = Path(__file__).with_name("vllm_unguarded_script.py")
    log = tmp_path_factory.mktemp("unguarded") / "log"
    with running(log, str(script), str(embedding_folder), VLLM_ENABLE_V1_MULTIPROCESSING="1") as process:
        yield process


@pytest.fixture(scope="session")
def printed_script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The running script of docs/vllm.md, which prints a little more here."""
    from snippets import python_blocks

    script, *_ = (block.code for block in python_blocks("docs/vllm.md") if block.exception is not None)
    code = script.replace("\n\n\nif __name__", "\n    print(vectors.shape, best[0].index)\n\n\nif __name__")
    # vLLM's default, which the guard is for.
    with _printed(code, tmp_path_factory.mktemp("script"), own_process="1") as process:
        yield process


@pytest.fixture(scope="session")
def printed_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The running examples of options of docs/vllm.md.

    Engines with shares of memory are not started: on a CPU these are of the machine's.
    """
    from snippets import python_blocks

    _, *options = (block.code for block in python_blocks("docs/vllm.md") if block.exception is not None)
    code = "".join(options) + "print(embedder.embed_queries(['a']).shape)\nembedder.close()\n"
    with _printed(code, tmp_path_factory.mktemp("options"), own_process="0") as process:
        yield process


def _printed(code: str, folder: Path, *, own_process: str) -> AbstractContextManager[Any]:
    """Run a document's code; `own_process` is VLLM_ENABLE_V1_MULTIPROCESSING."""
    from snippets import fill_hub_cache, hub_environment
    from vllm_processes import running

    script = folder / "script.py"
    script.write_text(code)
    hub = hub_environment(fill_hub_cache(folder / "hub"))
    return running(folder / "log", str(script), **hub, VLLM_ENABLE_V1_MULTIPROCESSING=own_process)
