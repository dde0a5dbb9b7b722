"""`qwen3-rag serve`: the printed commands carry what makes their servers right."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from oracle import RERANK_PREFIX, RERANK_SUFFIX, TASK
from qwen3_rag.cli import app
from typer.testing import CliRunner


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


def argv_of(*arguments: object) -> list[str]:
    """The printed line, parsed as a shell would; --json must give the same."""
    printed = run(*arguments)
    assert printed.exit_code == 0, printed.output
    argv = shlex.split(printed.stdout)
    assert json.loads(run(*arguments, "--json").stdout)["argv"] == argv
    return argv


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def overrides(argv: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(option(argv, "--hf-overrides"))
    return found


def test_vllm_embeds_with_pooling_and_matryoshka() -> None:
    argv = argv_of("Qwen/Qwen3-Embedding-0.6B")
    assert argv[:3] == ["vllm", "serve", "Qwen/Qwen3-Embedding-0.6B"]
    assert option(argv, "--runner") == "pooling"
    assert option(argv, "--convert") == "embed"
    assert overrides(argv) == {"is_matryoshka": True}
    assert option(argv, "--dtype") == "bfloat16"
    assert option(argv, "--max-model-len") == "8192"
    assert "--enable-prefix-caching" in argv
    assert option(argv, "--host") == "127.0.0.1"


def test_vllm_scores_with_the_rows_of_yes_and_no() -> None:
    argv = argv_of("Qwen/Qwen3-Reranker-8B", "--tensor-parallel", "2", "--gpu-share", "0.4")
    assert option(argv, "--runner") == "pooling"
    assert "--convert" not in argv
    assert overrides(argv) == {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    assert option(argv, "--tensor-parallel-size") == "2"
    assert option(argv, "--gpu-memory-utilization") == "0.4"


def filled(template: str, query: str, document: str, **fields: str) -> str:
    """The prompt, as vLLM lets Transformers' Jinja fill in a template for scores."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    return environment.from_string(template).render(messages=messages, **fields)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-Reranker-0.6B", "someone/Qwen3-Reranker-0.6B-seq-cls"])
def test_clients_that_send_text_to_a_reranker_get_the_exact_prompt(model: str) -> None:
    template = option(argv_of(model), "--chat-template")
    assert "\n" not in template, "it stays on one line of a terminal"
    for query, document in (("q", "d"), ("", " \n"), ("{{ 1 }} 'q' \"q\"", "<b> & ~ \\n é 北京\n")):
        for fields in ({}, {"instruction": "Find it\n说明"}):
            body = f"<Instruct>: {fields.get('instruction', TASK)}\n<Query>: {query}\n<Document>: {document}"
            assert filled(template, query, document, **fields) == RERANK_PREFIX + body + RERANK_SUFFIX


def test_an_embedder_gets_no_template() -> None:
    assert "--chat-template" not in argv_of("Qwen/Qwen3-Embedding-0.6B")


def test_a_converted_reranker_keeps_its_own_head(tmp_path: Path, reranking_checkpoint: Path) -> None:
    assert "--hf-overrides" not in argv_of("someone/Qwen3-Reranker-0.6B-seq-cls")
    folder = shutil.copytree(reranking_checkpoint, tmp_path / "converted")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "--hf-overrides" not in argv_of(folder)


def test_local_folders_are_told_apart_and_quoted(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    assert overrides(argv_of(embedding_checkpoint)) == {"is_matryoshka": True}
    assert overrides(argv_of(reranking_checkpoint))["classifier_from_token"] == ["no", "yes"]
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "my model's; rm -rf $HOME")
    assert argv_of(folder)[2] == str(folder)


def test_a_cpu_gets_blocks_that_fit_a_template() -> None:
    assert option(argv_of("Qwen/Qwen3-Reranker-0.6B", "--cpu"), "--block-size") == "32"


def test_a_cpu_compiles_nothing_and_its_cache_is_bounded() -> None:
    argv = argv_of("Qwen/Qwen3-Reranker-8B", "--cpu")
    assert "--enforce-eager" in argv
    per_token = 36 * 2 * 8 * 128 * 2  # layers, keys and values, heads, width, bytes of the 8B model in bfloat16
    assert 16384 * per_token < int(option(argv, "--kv-cache-memory-bytes")) < 18000 * per_token
    longest = argv_of("Qwen/Qwen3-Reranker-8B", "--cpu", "--max-tokens", "32768", "--dtype", "float32")
    assert int(option(longest, "--kv-cache-memory-bytes")) > 32768 * per_token * 2
    assert "--kv-cache-memory-bytes" not in argv_of("Qwen/Qwen3-Reranker-8B"), "a GPU's share bounds it"


def test_copies_of_a_model_share_an_address() -> None:
    argv = argv_of("Qwen/Qwen3-Embedding-0.6B", "--data-parallel", "2")
    assert option(argv, "--data-parallel-size") == "2"
    assert "--data-parallel-size" not in argv_of("Qwen/Qwen3-Embedding-0.6B")


def test_tei_pools_the_last_token_and_does_not_truncate(embedding_checkpoint: Path) -> None:
    argv = argv_of("Qwen/Qwen3-Embedding-0.6B", "--server", "tei")
    assert argv[:2] == ["docker", "run"]
    assert option(argv, "--model-id") == "Qwen/Qwen3-Embedding-0.6B"
    assert option(argv, "--pooling") == "last-token"
    assert option(argv, "--dtype") == "float32"
    assert option(argv, "--auto-truncate") == "false"
    assert int(option(argv, "--max-batch-tokens")) >= 32768
    assert option(argv, "-p") == "127.0.0.1:8000:80"
    argv = argv_of(embedding_checkpoint, "--server", "tei", "--cpu")
    assert option(argv, "-v") == f"{embedding_checkpoint}:/model:ro"
    assert option(argv, "--model-id") == "/model"
    assert "--gpus" not in argv


def test_notes_name_the_image_that_is_started() -> None:
    model = ("Qwen/Qwen3-Embedding-0.6B", "--server", "tei")
    assert "the image cuda-1.9" in run(*model).stderr
    on_cpu = run(*model, "--cpu")
    assert ":cpu-1.9 " in on_cpu.stdout
    assert "cuda" not in on_cpu.stderr


@pytest.mark.parametrize("server", ["vllm", "tei"])
def test_an_address_of_ipv6_stands_in_brackets_before_a_port(server: str) -> None:
    arguments = ("Qwen/Qwen3-Embedding-0.6B", "--server", server, "--host", "::1")
    assert '"http://[::1]:8000"' in run(*arguments).stderr
    argv = argv_of(*arguments)
    assert option(argv, "-p") == "[::1]:8000:80" if server == "tei" else option(argv, "--host") == "::1"


def test_a_line_that_standard_output_lacks_a_character_for_is_an_error(
    tmp_path: Path, embedding_checkpoint: Path
) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "模型")
    result = CliRunner(charset="cp1252").invoke(app, ["serve", str(folder)])
    assert result.exit_code == 2
    assert "PYTHONIOENCODING" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Qwen/Qwen3-Reranker-0.6B", "--server", "tei"], "TEI runs no Qwen3 reranker"),
        (["Qwen/Qwen3-Embedding-0.6B", "--server", "tei", "--dtype", "bfloat16"], "not in bfloat16"),
        (["Qwen/Qwen3-Embedding-8B", "--dtype", "float16"], "overflows to NaN"),
        (["Qwen/Qwen3-Embedding-0.6B", "--server", "tei", "--data-parallel", "2"], "on one device"),
        (["someone/some-model"], "give --kind"),
        (["demo"], "which no server knows"),
        (["demo", "--kind", "embedding"], "which no server knows"),
        (["demo", "--kind", "embedding", "--server", "tei"], "which no server knows"),
        (["Qwen/Qwen3-Embedding-0.6B", "--gpu-share", "1.5"], "gpu_share must be"),
    ],
)
def test_what_no_server_does_right_is_refused(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_notes_say_what_the_key_does_not_guard() -> None:
    result = run("Qwen/Qwen3-Reranker-0.6B")
    assert "not /classify" in result.stderr
    assert "#" not in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for vLLM")
def test_run_becomes_the_command(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "$$"\nfor word in "$@"; do echo "$word"; done\nexit 7\n')
    program.chmod(0o755)
    command = [sys.executable, "-m", "qwen3_rag.cli", "serve", "Qwen/Qwen3-Embedding-0.6B"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [*command, "--run"], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate()
    assert process.returncode == 7
    pid, *words = out.splitlines()
    assert int(pid) == process.pid, "a child of ours would not get our signals"
    assert words == argv_of("Qwen/Qwen3-Embedding-0.6B")[1:]


def test_run_without_the_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("Qwen/Qwen3-Embedding-0.6B", "--run")
    assert result.exit_code == 2
    assert 'pip install "qwen3-rag[vllm]"' in result.stderr


def test_printing_a_command_loads_no_torch() -> None:
    script = (
        "import sys; from qwen3_rag.cli import app; app(['serve', 'Qwen/Qwen3-Embedding-0.6B'], "
        "standalone_mode=False); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
