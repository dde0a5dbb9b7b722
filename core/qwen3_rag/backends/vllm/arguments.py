"""From settings and a checkpoint to the arguments of a vLLM engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import Qwen3Config

from qwen3_rag.backends.device.choice import choose_device, choose_dtype
from qwen3_rag.backends.vllm.options import VllmOptions
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.settings import EngineSettings
from qwen3_rag.vllm_facts import (
    CACHE_TOKENS,
    CPU_BLOCK_SIZE,
    SPARE_TOKENS,
    original_reranker_overrides,
)

DEFAULT_MAX_MODEL_LEN: Final = 8192
"""In tokens: the default `max_tokens` of `Embedder` and `Reranker`."""
UNCHECKED_SHARE: Final = 0.01
"""`gpu_memory_utilization` beside a fixed cache size. vLLM then uses it for one check: it refuses to start
unless this share of the GPU's memory is free. Its default of 0.92 would refuse a second engine on the GPU.
Chosen, not tuned."""


@dataclass(frozen=True)
class EngineArguments:
    """How to start an engine.

    Attributes:
        values: keyword arguments of `vllm.LLM`, the model included.
        device: of the engine's first worker; its index is None where vLLM chooses.
        max_model_len: longest prompt that the engine takes, in tokens.
    """

    values: Mapping[str, Any]
    device: torch.device
    max_model_len: int


def engine_arguments(settings: EngineSettings, checkpoint: Checkpoint, options: VllmOptions) -> EngineArguments:
    """Return the arguments of a vLLM engine for a checkpoint.

    Raises:
        ConfigurationError: the device is not there, or the options do not fit the model.
    """
    device = choose_vllm_device(settings.one_device)
    dtype = choose_dtype(settings.dtype, device)
    on_cpu = device.type == "cpu"
    most = min(DEFAULT_MAX_MODEL_LEN, checkpoint.context)
    max_model_len = most if options.max_model_len is None else options.max_model_len
    if max_model_len > checkpoint.context:
        raise ConfigurationError(
            f"max_model_len must be 1 to {checkpoint.context} (the model's context), got {max_model_len}"
        )
    values: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "runner": "pooling",
        # Never left to vLLM: its "auto" turns float32 checkpoints into float16.
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": max_model_len,
        "enable_prefix_caching": settings.share_prefixes,
        "tensor_parallel_size": options.tensor_parallel_size,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "load_format": "safetensors" if options.use_safetensors else "auto",
        "disable_log_stats": True,
        **_pooling(settings, checkpoint),
        **_memory(options, checkpoint.config, dtype, max_model_len),
    }
    block_size = CPU_BLOCK_SIZE if on_cpu and options.block_size is None else options.block_size
    if block_size is not None:
        values["block_size"] = block_size
    if options.data_parallel_size > 1:
        values["data_parallel_size"] = options.data_parallel_size
    if device.index:
        # Without it vLLM begins at device 0.
        workers = options.tensor_parallel_size * options.data_parallel_size
        values["device_ids"] = list(range(device.index, device.index + workers))
    return EngineArguments({**values, **options.engine_args}, device, max_model_len)


def choose_vllm_device(device: str | None) -> torch.device:
    """Return the device that vLLM is to run on; for None, a GPU if this machine has one.

    Does not initialise CUDA in this process: the engine may run in another one.

    Raises:
        ConfigurationError: the device is not there, or this vLLM is not built for it.
    """
    builds = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(builds) if device is None else choose_device(device)
    if chosen.type != builds:
        raise ConfigurationError(
            f"vLLM runs on {builds} here, so device must be {builds!r} or None, got {device!r}; "
            'backend="transformers" runs on any device'
        )
    # "cuda" and "cpu:0" leave the choice to vLLM; "cuda:1" does not.
    return chosen if chosen.type == "cuda" else torch.device("cpu")


def _pooling(settings: EngineSettings, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the arguments that select what is pooled: the last token's hidden state, or its log-odds."""
    if settings.kind == "embedding":
        return {"convert": "embed"}
    if checkpoint.is_classifier:
        return {"convert": "classify"}
    return {"hf_overrides": original_reranker_overrides()}


def _memory(
    options: VllmOptions, config: Mapping[str, Any], dtype: torch.dtype, max_model_len: int
) -> dict[str, Any]:
    if options.gpu_memory_utilization is not None:
        given = {"gpu_memory_utilization": options.gpu_memory_utilization}
        if options.kv_cache_memory_bytes is None:
            return given
        return {**given, "kv_cache_memory_bytes": options.kv_cache_memory_bytes}
    size = options.kv_cache_memory_bytes
    if size is None:
        tokens = max(CACHE_TOKENS, max_model_len) + SPARE_TOKENS
        size = tokens * cache_bytes_per_token(config, dtype, options.tensor_parallel_size)
    return {"kv_cache_memory_bytes": size, "gpu_memory_utilization": UNCHECKED_SHARE}


def cache_bytes_per_token(config: Mapping[str, Any], dtype: torch.dtype, tensor_parallel_size: int) -> int:
    """Return the bytes of one token's keys and values on each device, over all layers."""
    known: Any = Qwen3Config.from_dict(dict(config))  # with what a file leaves out, as vLLM has it
    # With more devices than heads, vLLM replicates heads.
    kv_heads = max(1, -(-known.num_key_value_heads // tensor_parallel_size))
    return int(known.num_hidden_layers * 2 * kv_heads * known.head_dim * dtype.itemsize)
