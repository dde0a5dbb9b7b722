"""What `model_kwargs` may hold for this backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from qwen3_rag.backends.switches import check_switch
from qwen3_rag.errors import ConfigurationError


@dataclass(frozen=True)
class Options:
    """Settings of this backend only.

    Attributes:
        attn_implementation: handed to Transformers' `from_pretrained`, such as "sdpa" or "eager".
        device_map: likewise; then Accelerate places the model and `device` is not used.
        quantization_config: likewise.
        use_safetensors: False also loads pickled weights, which can run code of the checkpoint's author.
        trust_remote_code: run code that comes with the checkpoint.
        accept_other_inputs: load a checkpoint whose own tokenizer and chat template make other token ids than
            this package; see `inputs`.
    """

    attn_implementation: str | None = None
    device_map: Any = None
    quantization_config: Any = None
    use_safetensors: bool = True
    trust_remote_code: bool = False
    accept_other_inputs: bool = False

    def __post_init__(self) -> None:
        for name in ("use_safetensors", "trust_remote_code", "accept_other_inputs"):
            check_switch(name, getattr(self, name))

    @classmethod
    def parse(cls, model_kwargs: Mapping[str, Any]) -> Options:
        """Read a component's `model_kwargs`, those for the hub left out.

        Raises:
            ConfigurationError: a name is unknown, or a switch is neither True nor False.
        """
        known = [field.name for field in fields(cls)]
        for name in model_kwargs:
            if name not in known:
                raise ConfigurationError(
                    f'backend="sentence-transformers" knows no {name!r} in model_kwargs; '
                    f"there are: {', '.join(known)}"
                )
        return cls(**model_kwargs)

    def from_pretrained(self) -> dict[str, Any]:
        """Return the arguments for Transformers' `from_pretrained`, without unset ones."""
        given = {
            "attn_implementation": self.attn_implementation,
            "device_map": self.device_map,
            "quantization_config": self.quantization_config,
        }
        return {
            "use_safetensors": self.use_safetensors,
            **{name: value for name, value in given.items() if value is not None},
        }
