"""What `model_kwargs` of the vLLM backend may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from qwen3_rag.backends.switches import check_switch
from qwen3_rag.errors import ConfigurationError

RESERVED: Final[Mapping[str, str]] = {
    "model": "the component's `model`",
    "tokenizer": "the checkpoint's own",
    "skip_tokenizer_init": "vLLM needs the tokenizer to find the answers' rows",
    "dtype": "the component's `dtype`",
    "revision": "the component's `revision`",
    "enable_prefix_caching": "the component's `share_prefixes`",
    "device_ids": "the component's `device`",
    "load_format": "the option `use_safetensors`",
    "runner": "always pooling",
    "convert": "follows from the checkpoint",
    "task": "follows from the checkpoint",
    "hf_overrides": "follows from the checkpoint",
    "pooler_config": "always the last token",
    "disable_log_stats": "always True",
}
"""Engine arguments that this backend decides, because numbers depend on them -> by what."""


@dataclass(frozen=True)
class VllmOptions:
    """Options of the vLLM backend, given as `model_kwargs`.

    Attributes:
        max_model_len: longest prompt in tokens that the engine takes; None for 8,192 or the model's
            context, whichever is less. Raise it together with `max_tokens`.
        kv_cache_memory_bytes: memory of the key-value cache, on each device; None for room for
            16,384 tokens, or for one prompt of `max_model_len` if that is more.
        gpu_memory_utilization: share of the device's memory, between 0 and 1, that the whole engine
            may take; vLLM then fits the cache into it. None leaves the size of the cache to
            `kv_cache_memory_bytes`.
        tensor_parallel_size: devices that share each layer.
        data_parallel_size: copies of the model that share the prompts, in processes of their own.
        enforce_eager: compile nothing and capture no graph. None for True on a CPU, else False.
        block_size: tokens of one block of the cache, and so the grain in which prefixes are shared;
            None for 32 on a CPU, else vLLM's own.
        use_safetensors: False allows pickled weights too.
        engine_args: further arguments of `vllm.LLM`, handed on as they are, such as `quantization`,
            `max_num_seqs`, `max_num_batched_tokens`, `trust_remote_code`, `attention_backend`.
    """

    max_model_len: int | None = None
    kv_cache_memory_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    enforce_eager: bool | None = None
    block_size: int | None = None
    use_safetensors: bool = True
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, may_be_unset in _COUNTS.items():
            _check_count(name, getattr(self, name), may_be_unset)
        share = self.gpu_memory_utilization
        is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if share is not None and not (is_number and 0 < share <= 1):
            raise ConfigurationError(
                f"gpu_memory_utilization must be a number above 0 and at most 1, got {share!r}"
            )
        if self.enforce_eager is not None:
            check_switch("enforce_eager", self.enforce_eager)
        check_switch("use_safetensors", self.use_safetensors)
        if not isinstance(self.engine_args, Mapping):
            raise ConfigurationError(
                "engine_args must map names of vLLM's arguments to values, for example "
                f'{{"quantization": "fp8"}}, got a {type(self.engine_args).__name__}'
            )
        own = {field.name for field in fields(self)}
        for name in self.engine_args:
            if name in own:
                raise ConfigurationError(f"{name} is an option of its own: move it out of engine_args")
            if name in RESERVED:
                raise ConfigurationError(f"engine_args cannot hold {name}, which is set here: {RESERVED[name]}")


_COUNTS: Final = {
    "max_model_len": True,
    "kv_cache_memory_bytes": True,
    "tensor_parallel_size": False,
    "data_parallel_size": False,
    "block_size": True,
}
"""Options that are whole numbers -> whether None leaves them unset."""


def parse_options(model_kwargs: Mapping[str, Any] | None) -> VllmOptions:
    """Return the options that `model_kwargs` holds.

    Raises:
        ConfigurationError: a name is unknown, or a value is out of range.
    """
    given = dict(model_kwargs or {})
    known = [field.name for field in fields(VllmOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(
            f"model_kwargs of the vllm backend cannot hold {', '.join(unknown)}; it takes: {', '.join(known)} "
            "(arguments of vllm.LLM go into engine_args)"
        )
    return VllmOptions(**given)


def _check_count(name: str, value: object, may_be_unset: bool) -> None:
    if value is None and may_be_unset:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be an integer of at least 1, got {value!r}")
