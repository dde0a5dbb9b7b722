"""What the vLLM backend tells vLLM, before any engine is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from qwen3_rag import ConfigurationError, Embedder
from qwen3_rag.backends.device.choice import computes_bfloat16
from qwen3_rag.backends.vllm.arguments import cache_bytes_per_token, engine_arguments
from qwen3_rag.backends.vllm.options import parse_options
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.settings import EngineSettings

SMALLEST = {
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 1024,
}


def arguments_of(folder: Path, kind: Any = "embedding", **changes: Any) -> dict[str, Any]:
    model_kwargs = changes.pop("model_kwargs", None)
    settings = EngineSettings(kind, str(folder), "vllm", "cpu", **changes)
    checkpoint = open_checkpoint(settings, weights=True)
    return dict(engine_arguments(settings, checkpoint, parse_options(model_kwargs)).values)


def test_an_unknown_option_is_answered_with_the_known_ones(embedding_folder: Path) -> None:
    embedder = Embedder(str(embedding_folder), backend="vllm", model_kwargs={"max_len": 5})
    with pytest.raises(ConfigurationError, match=r"max_len; it takes: max_model_len, kv_cache_memory_bytes"):
        embedder.load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_model_len": 0}, "max_model_len must be an integer of at least 1, got 0"),
        ({"tensor_parallel_size": True}, "tensor_parallel_size must be an integer of at least 1, got True"),
        ({"tensor_parallel_size": None}, "tensor_parallel_size must be an integer of at least 1, got None"),
        ({"kv_cache_memory_bytes": 0}, "kv_cache_memory_bytes must be an integer of at least 1, got 0"),
        ({"block_size": 16.0}, "block_size must be an integer of at least 1, got 16.0"),
        ({"data_parallel_size": None}, "data_parallel_size must be an integer of at least 1, got None"),
        ({"data_parallel_size": "2"}, "data_parallel_size must be an integer of at least 1, got '2'"),
        ({"gpu_memory_utilization": 0}, "above 0 and at most 1, got 0"),
        ({"gpu_memory_utilization": 1.01}, "above 0 and at most 1, got 1.01"),
        ({"gpu_memory_utilization": "0.5"}, "a number above 0 and at most 1, got '0.5'"),
        ({"gpu_memory_utilization": True}, "a number above 0 and at most 1, got True"),
        ({"gpu_memory_utilization": float("nan")}, "a number above 0 and at most 1, got nan"),
        ({"enforce_eager": "false"}, "enforce_eager must be True or False, got 'false'"),
        ({"use_safetensors": None}, "use_safetensors must be True or False, got None"),
        ({"engine_args": None}, "engine_args must map names .* got a NoneType"),
        ({"engine_args": "quantization"}, "engine_args must map names .* got a str"),
        ({"engine_args": ["quantization"]}, "engine_args must map names"),
        (
            {"engine_args": {"dtype": "float16"}},
            "cannot hold dtype, which is set here: the component's",
        ),
        ({"engine_args": {"max_model_len": 9}}, "max_model_len is an option of its own"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_options(options)


def test_the_least_and_the_most_are_taken_and_none_leaves_to_the_backend() -> None:
    counts = (
        "max_model_len",
        "kv_cache_memory_bytes",
        "block_size",
        "tensor_parallel_size",
        "data_parallel_size",
    )
    options = parse_options({"gpu_memory_utilization": 1, **dict.fromkeys(counts, 1)})
    assert options.gpu_memory_utilization == 1
    assert {getattr(options, name) for name in counts} == {1}
    unset = ("max_model_len", "kv_cache_memory_bytes", "block_size", "gpu_memory_utilization", "enforce_eager")
    assert parse_options(dict.fromkeys(unset)) == parse_options({})


def test_more_than_the_context_is_refused(embedding_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_model_len must be 1 to 32768"):
        arguments_of(embedding_folder, model_kwargs={"max_model_len": 32769})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_vllm_does_not_have_is_refused(embedding_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="cuda"):
        Embedder(str(embedding_folder), backend="vllm", device="cuda").load()


def test_the_element_type_is_never_left_to_vllm(embedding_folder: Path) -> None:
    auto = "bfloat16" if computes_bfloat16(torch.device("cpu")) else "float32"
    assert arguments_of(embedding_folder)["dtype"] == auto
    assert arguments_of(embedding_folder, dtype="float32")["dtype"] == "float32"


def test_prefix_caching_follows_share_prefixes(embedding_folder: Path) -> None:
    assert arguments_of(embedding_folder)["enable_prefix_caching"] is True
    assert arguments_of(embedding_folder, share_prefixes=False)["enable_prefix_caching"] is False


def test_a_reranker_becomes_a_classifier_of_yes_and_no(reranking_folder: Path, tmp_path: Path) -> None:
    overrides = arguments_of(reranking_folder, "reranking")["hf_overrides"]
    assert overrides["classifier_from_token"] == ["no", "yes"]
    config = json.loads((reranking_folder / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    converted = arguments_of(tmp_path, "reranking")
    assert "hf_overrides" not in converted
    assert converted["convert"] == "classify"


def test_a_cached_token_of_the_smallest_model_takes_112_kib() -> None:
    assert cache_bytes_per_token(SMALLEST, torch.bfloat16, 1) == 28 * 2 * 8 * 128 * 2 == 112 << 10
    assert cache_bytes_per_token(SMALLEST, torch.bfloat16, 2) == 56 << 10
    assert cache_bytes_per_token(SMALLEST, torch.float32, 16) == 28 * 2 * 1 * 128 * 4


def test_an_embedder_and_a_reranker_of_default_options_share_24_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "max_position_embeddings": 32768, **SMALLEST})
    )
    found = arguments_of(tmp_path, dtype="bfloat16")
    weights = 1.2e9
    assert 2 * (weights + found["kv_cache_memory_bytes"]) < 8e9
    # vLLM on a GPU checks that this share is free, even when the size of the cache is given.
    assert found["gpu_memory_utilization"] < 0.05
    assert found["kv_cache_memory_bytes"] >= found["max_model_len"] * (112 << 10)


def test_a_share_of_memory_replaces_a_size(embedding_folder: Path) -> None:
    found = arguments_of(embedding_folder, model_kwargs={"gpu_memory_utilization": 0.4})
    assert found["gpu_memory_utilization"] == 0.4
    assert "kv_cache_memory_bytes" not in found


def test_further_arguments_reach_vllm(embedding_folder: Path) -> None:
    options = {"engine_args": {"max_num_seqs": 3}, "tensor_parallel_size": 2, "block_size": 64}
    found = arguments_of(embedding_folder, model_kwargs=options)
    assert (found["max_num_seqs"], found["tensor_parallel_size"], found["block_size"]) == (3, 2, 64)


def test_only_safetensors_are_read_unless_asked(embedding_folder: Path) -> None:
    assert arguments_of(embedding_folder)["load_format"] == "safetensors"
    allowed = arguments_of(embedding_folder, model_kwargs={"use_safetensors": False})
    assert allowed["load_format"] == "auto"
