"""The modules that Sentence Transformers saves beside a model, read without that library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_rag.errors import CheckpointError
from qwen3_rag.json_files import positive_integer, read_json, read_object


@dataclass(frozen=True)
class SavedModule:
    """A saved module.

    Attributes:
        type: its class's full name.
        config: its settings; empty where it has none.
    """

    type: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The last part of its class's name, such as "Pooling"."""
        return self.type.rsplit(".", 1)[-1]

    @property
    def is_foreign(self) -> bool:
        """Whether its class is not Sentence Transformers' own, whatever its name."""
        return not self.type.startswith("sentence_transformers.")


def saved_modules(folder: Path) -> list[SavedModule]:
    """Return the modules of a folder, in their order; none where that library did not save it.

    Raises:
        CheckpointError: a file is unreadable or malformed.
    """
    path = folder / "modules.json"
    saved = read_json(path)
    if saved is None:
        return []
    try:
        listed = [(str(module["type"]), str(module["path"])) for module in saved]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} must list modules with type and path, got {saved!r:.200}") from error
    return [SavedModule(type_, read_object(folder / inside / "config.json") or {}) for type_, inside in listed]


def pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """Return the poolings that a Pooling module's settings ask for, in either of the library's spellings."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    return [
        key.removeprefix("pooling_mode_")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]


def output_size(folder: Path, hidden_size: int) -> int:
    """Return the length of the vectors after all saved modules: several poolings add up, Dense decides.

    Args:
        folder: of the checkpoint.
        hidden_size: length of the model's final hidden states.
    """
    size = hidden_size
    for module in saved_modules(folder):
        if module.name == "Pooling":
            size = hidden_size * len(pooling_modes(module.config))
        elif module.name == "Dense":
            size = positive_integer(module.config, "out_features", folder)
    return size
