"""Which arguments and variables an engine is started with: lengths, memory, devices, and none set twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from qwen3_rag import ConfigurationError
from qwen3_rag.backends.vllm import lifecycle
from qwen3_rag.backends.vllm.arguments import EngineArguments, engine_arguments
from qwen3_rag.backends.vllm.options import parse_options
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.settings import EngineSettings
from qwen3_rag.vllm_facts import CACHE_TOKENS, CPU_BLOCK_SIZE, SPARE_TOKENS
from transformers import AutoConfig

CONFIG = {
    "model_type": "qwen3",
    "max_position_embeddings": 32768,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size": 64,
}
BYTES_PER_TOKEN = 3 * 2 * 2 * 32 * 4
"""In float32: layers, keys and values, heads, their size, bytes of an element."""


def made(
    folder: Path, kind: Any = "embedding", *, device: str | None = "cpu", config: Any = CONFIG, **options: Any
) -> EngineArguments:
    """The arguments of a model without weights."""
    (folder / "config.json").write_text(json.dumps(config))
    settings = EngineSettings(kind, str(folder), "vllm", device, dtype="float32")
    return engine_arguments(settings, open_checkpoint(settings, weights=True), parse_options(options))


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch says where there are some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(("context", "longest"), [(32768, 8192), (8193, 8192), (4096, 4096)])
def test_prompts_may_have_8192_tokens_or_the_context(context: int, longest: int, tmp_path: Path) -> None:
    config = CONFIG | {"max_position_embeddings": context}
    by_default = made(tmp_path, config=config)
    assert by_default.max_model_len == by_default.values["max_model_len"] == longest
    most = made(tmp_path, config=config, max_model_len=context)
    assert most.max_model_len == most.values["max_model_len"] == context


def test_the_cache_holds_what_is_worth_keeping_and_the_longest_prompt(tmp_path: Path) -> None:
    def cache(**options: Any) -> Any:
        return made(tmp_path, **options).values["kv_cache_memory_bytes"]

    assert cache() == cache(max_model_len=CACHE_TOKENS) == (CACHE_TOKENS + SPARE_TOKENS) * BYTES_PER_TOKEN
    assert cache(max_model_len=20_000) == (20_000 + SPARE_TOKENS) * BYTES_PER_TOKEN
    assert 2 * cache(tensor_parallel_size=2) == cache(), "each device has its share of the heads"
    assert cache(kv_cache_memory_bytes=5 << 20) == 5 << 20


def test_a_size_and_a_share_of_memory_may_be_given_together(tmp_path: Path) -> None:
    values = made(tmp_path, kv_cache_memory_bytes=5 << 20, gpu_memory_utilization=0.3).values
    assert (values["kv_cache_memory_bytes"], values["gpu_memory_utilization"]) == (5 << 20, 0.3)


def test_what_a_config_leaves_out_is_counted_as_vllm_takes_it(tmp_path: Path) -> None:
    bare = {name: value for name, value in CONFIG.items() if name != "head_dim"}
    size = made(tmp_path, config=bare).values["kv_cache_memory_bytes"]
    assert AutoConfig.from_pretrained(tmp_path).head_dim == 128
    assert size == (CACHE_TOKENS + SPARE_TOKENS) * 3 * 2 * 2 * 128 * 4


def test_on_a_cpu_nothing_is_compiled_and_blocks_are_short_unless_asked(tmp_path: Path) -> None:
    values = made(tmp_path).values
    assert (values["enforce_eager"], values["block_size"]) == (True, CPU_BLOCK_SIZE)
    assert values["tensor_parallel_size"] == 1
    assert "data_parallel_size" not in values, "LLM refuses it"
    asked = made(tmp_path, enforce_eager=False, block_size=16, data_parallel_size=2).values
    assert (asked["enforce_eager"], asked["block_size"], asked["data_parallel_size"]) == (False, 16, 2)


@pytest.mark.usefixtures("four_gpus")
def test_on_a_gpu_vllm_compiles_and_chooses_the_blocks_unless_asked(tmp_path: Path) -> None:
    values = made(tmp_path, device="cuda:0").values
    assert values["enforce_eager"] is False
    assert "block_size" not in values
    asked = made(tmp_path, device="cuda:0", enforce_eager=True, block_size=16).values
    assert (asked["enforce_eager"], asked["block_size"]) == (True, 16)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("device", [None, "cuda", "cuda:0"])
def test_vllm_begins_at_the_first_gpu_by_itself(device: str | None, tmp_path: Path) -> None:
    found = made(tmp_path, device=device)
    assert found.device.type == "cuda"
    assert "device_ids" not in found.values


@pytest.mark.usefixtures("four_gpus")
def test_workers_take_the_gpus_from_the_one_that_is_named(tmp_path: Path) -> None:
    named = made(tmp_path, device="cuda:1")
    assert (named.device, named.values["device_ids"]) == (torch.device("cuda:1"), [1])
    shares = made(tmp_path, device="cuda:1", tensor_parallel_size=3)
    assert shares.values["device_ids"] == [1, 2, 3]
    copies = made(tmp_path, device="cuda:2", data_parallel_size=2)
    assert copies.values["device_ids"] == [2, 3]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("device", ["cpu", "cuda:4"])
def test_a_device_that_vllm_cannot_use_where_there_are_gpus_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=device):
        made(tmp_path, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", [None, "cpu", "cpu:0"])
def test_without_a_gpu_vllm_is_given_the_cpu(device: str | None, tmp_path: Path) -> None:
    assert made(tmp_path, device=device).device == torch.device("cpu")


@pytest.mark.parametrize("name", ["Qwen3Model", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"])
def test_what_is_set_here_cannot_be_set_again(name: str, tmp_path: Path) -> None:
    kind = "embedding" if name == "Qwen3Model" else "reranking"
    values = made(tmp_path, kind, config=CONFIG | {"architectures": [name]}, data_parallel_size=2).values
    assert values["model"] == str(tmp_path)
    assert (values["runner"], values["disable_log_stats"]) == ("pooling", True)
    assert (values.get("convert") == "embed") == (kind == "embedding")
    for argument in values:
        with pytest.raises(ConfigurationError, match=argument):
            parse_options({"engine_args": {argument: values[argument]}})


@pytest.mark.parametrize(
    "argument", ["tokenizer", "skip_tokenizer_init", "revision", "device_ids", "task", "pooler_config"]
)
def test_what_would_change_the_numbers_cannot_be_set(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot hold {argument}, which is set here"):
        parse_options({"engine_args": {argument: None}})


@pytest.mark.parametrize("of_the_user", [None, "0"])
def test_vllm_reports_nothing_to_its_makers_unless_asked(
    of_the_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    if of_the_user is not None:
        monkeypatch.setenv("VLLM_NO_USAGE_STATS", of_the_user)
    seen: list[Any] = []
    names = ("VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROC_METHOD")
    running = lifecycle.start(lambda: seen.extend(map(os.environ.get, names)), always_apart=True)
    lifecycle.stop(running)
    assert seen == [of_the_user or "1", "spawn"]
