"""`qwen3-rag serve`: each option reaches the server's command, and none that means nothing is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from qwen3_rag import demo
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.serving import ServedModel, serve_command
from test_serve_command import argv_of, option, run

MODEL = "Qwen/Qwen3-Embedding-0.6B"


def test_a_port_and_a_revision_reach_vllm() -> None:
    argv = argv_of(MODEL, "--port", 9001, "--revision", "v1", "--max-tokens", 100, "--gpu-share", 1)
    assert (option(argv, "--port"), option(argv, "--revision")) == ("9001", "v1")
    assert (option(argv, "--max-model-len"), option(argv, "--gpu-memory-utilization")) == ("100", "1.0")


def test_a_port_and_a_revision_reach_tei() -> None:
    argv = argv_of(MODEL, "--server", "tei", "--port", 9001, "--revision", "v1", "--host", "0.0.0.0")
    assert (option(argv, "-p"), option(argv, "--revision")) == ("0.0.0.0:9001:80", "v1")


def test_what_is_not_given_is_left_to_the_server() -> None:
    for server in ("vllm", "tei"):
        assert "--revision" not in argv_of(MODEL, "--server", server)
    argv = argv_of(MODEL)
    assert "--gpu-memory-utilization" not in argv
    assert "--tensor-parallel-size" not in argv


@pytest.mark.parametrize(
    "wrong",
    [
        ("--port", 0),
        ("--port", 65536),
        ("--max-tokens", 0),
        ("--tensor-parallel", 0),
        ("--data-parallel", 0),
        ("--gpu-share", 0),
    ],
    ids=str,
)
def test_a_number_that_means_nothing_is_bad_usage(wrong: tuple[str, int]) -> None:
    assert run(MODEL, *wrong).exit_code == 2


def test_a_kind_is_taken_from_whoever_knows_better() -> None:
    assert option(argv_of("someone/some-model", "--kind", "embedding"), "--convert") == "embed"
    assert "--hf-overrides" in argv_of("someone/some-model", "--kind", "reranking")
    assert "--convert" not in argv_of(MODEL, "--kind", "reranking")


def test_the_name_of_a_conversion_tells_that_it_is_a_reranker() -> None:
    argv = argv_of("someone/some-Seq-CLS")
    assert "--convert" not in argv
    assert "--hf-overrides" not in argv


def test_a_folder_at_home_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(demo.__file__).parent / "models" / "demo-embedding", tmp_path / "model")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    argv = argv_of("~/model", "--server", "tei")
    assert option(argv, "-v") == f"{(tmp_path / 'model').resolve()}:/model:ro"


def test_json_holds_the_notes_too() -> None:
    arguments = (MODEL, "--port", 9001, "--host", "some.host")
    notes = json.loads(run(*arguments, "--json").stdout)["notes"]
    assert [f"# {note}" for note in notes] == run(*arguments).stderr.splitlines()
    assert '"base_url": "http://some.host:9001"' in notes[0]


def test_run_without_docker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(MODEL, "--server", "tei", "--run")
    assert result.exit_code == 2
    assert "install Docker" in result.stderr


def test_a_prompt_of_no_token_is_refused_in_python_too() -> None:
    with pytest.raises(ConfigurationError, match="max_tokens must be 1 or more, got 0"):
        serve_command("vllm", ServedModel(MODEL, "embedding", max_tokens=0))
    serve_command("vllm", ServedModel(MODEL, "embedding", max_tokens=1))


def test_python_and_the_command_line_have_the_same_defaults() -> None:
    for model, kind in ((MODEL, "embedding"), ("Qwen/Qwen3-Reranker-0.6B", "reranking")):
        for cpu in (False, True):
            served = ServedModel(model, kind, cpu=cpu)
            assert list(serve_command("vllm", served).argv) == argv_of(model, *(["--cpu"] if cpu else []))


@pytest.mark.parametrize("server", ["vllm", "tei"])
def test_only_the_largest_model_is_refused_in_float16(server: str) -> None:
    assert option(argv_of(MODEL, "--server", server, "--dtype", "float16"), "--dtype") == "float16"
    assert run("Qwen/Qwen3-Embedding-8B", "--server", server, "--dtype", "float16").exit_code == 2


TOPICS = {
    "template": "clients that send text use /rerank or /score",
    "share": "--gpu-share",
    "cache": "the cache takes",
    "copies": "copies takes weights and cache of its own",
    "kernels": "chooses kernels for the GPU",
}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((MODEL,), ("share",)),
        ((MODEL, "--gpu-share", 0.4), ()),
        ((MODEL, "--cpu"), ("cache",)),
        ((MODEL, "--data-parallel", 2), ("share", "copies")),
        (("Qwen/Qwen3-Reranker-0.6B", "--gpu-share", 0.4), ("template",)),
        ((MODEL, "--server", "tei"), ("kernels",)),
        ((MODEL, "--server", "tei", "--cpu"), ()),
    ],
    ids=str,
)
def test_only_what_matters_is_noted(arguments: tuple[object, ...], told: tuple[str, ...]) -> None:
    notes = run(*arguments).stderr
    assert {topic for topic, words in TOPICS.items() if words in notes} == set(told)


def test_notes_say_where_token_ids_go_and_how_large_the_cache_is() -> None:
    assert "exact token ids go to /v1/embeddings" in run(MODEL).stderr
    assert "exact token ids go to /classify" in run("Qwen/Qwen3-Reranker-0.6B").stderr
    size = int(option(argv_of(MODEL, "--cpu"), "--kv-cache-memory-bytes"))
    assert f"the cache takes {size / 1e9:.1f} GB" in run(MODEL, "--cpu").stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_server_that_listens_everywhere_is_reached_here(host: str) -> None:
    for server in ("vllm", "tei"):
        assert '"http://localhost:8000"' in run(MODEL, "--server", server, "--host", host).stderr


def test_brackets_around_an_address_are_not_doubled() -> None:
    assert '"http://[::1]:8000"' in run(MODEL, "--host", "[::1]").stderr


def test_tei_spreads_no_model_over_devices() -> None:
    result = run(MODEL, "--server", "tei", "--tensor-parallel", 2)
    assert result.exit_code == 2
    assert "on one device" in result.stderr


def test_tei_gets_the_gpus_a_place_for_weights_and_the_key() -> None:
    argv = argv_of(MODEL, "--server", "tei")
    assert (option(argv, "--gpus"), option(argv, "-v"), option(argv, "-e")) == (
        "all",
        "tei-data:/data",
        "API_KEY",
    )
    assert "--rm" in argv
    assert "ghcr.io/huggingface/text-embeddings-inference:cuda-1.9" in argv
