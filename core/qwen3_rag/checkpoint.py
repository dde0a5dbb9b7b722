"""Where a checkpoint's files are and what they say, before any weight is read. Needs no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qwen3_rag.errors import CheckpointError, ConfigurationError, MissingExtraError, WrongModelKindError
from qwen3_rag.models import ModelKind, kind_of_name
from qwen3_rag.settings import EngineSettings

_DESCRIPTION_FILES: Final = ["*.json", "*.txt", "*.jinja"]
_WEIGHT_FILES: Final = [*_DESCRIPTION_FILES, "*.safetensors"]
_PICKLED_WEIGHT_FILES: Final = ["*.bin"]
_KNOWN_MODULES: Final = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and what its small files state.

    Attributes:
        folder: local folder of the files.
        hidden_size: length of the final hidden state.
        context: longest input in tokens.
        query_prompt: text before queries, as saved by Sentence Transformers; None when not saved.
        document_prompt: text before documents, likewise; published checkpoints have none.
    """

    folder: Path
    hidden_size: int
    context: int
    query_prompt: str | None
    document_prompt: str


def open_checkpoint(settings: EngineSettings, *, weights: bool) -> Checkpoint:
    """Find a checkpoint's files, downloading what is not local, and read its description.

    Args:
        settings: names the model, revision, hub and kind.
        weights: also fetch the weights; False is enough to make token ids.

    Raises:
        CheckpointError: files are absent, unreadable or not those of a Qwen3 model.
        WrongModelKindError: the name or the files say that it is of the other kind.
    """
    _check_kind(kind_of_name(settings.model), settings)
    folder = _local_folder(settings, weights=weights)
    config = _read_json(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder} holds no config.json: it is not a model checkpoint")
    if config.get("model_type") != "qwen3":
        raise CheckpointError(
            f"{settings.model} is a {config.get('model_type')!r} model; only Qwen3 checkpoints run here"
        )
    _check_kind(_kind_of_files(folder, config), settings)
    prompts = (_read_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    if settings.kind == "embedding":
        _check_modules(folder)
    return Checkpoint(
        folder,
        int(config["hidden_size"]),
        int(config.get("max_position_embeddings", 32768)),
        prompts.get("query") or None,
        prompts.get("document") or prompts.get("passage") or "",
    )


def _local_folder(settings: EngineSettings, *, weights: bool) -> Path:
    model = settings.model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith(("/", "./", "../", "~")) or os.sep in model[-1:]:
        raise CheckpointError(f"no such folder: {model}")
    patterns = list(_WEIGHT_FILES if weights else _DESCRIPTION_FILES)
    if weights and (settings.model_kwargs or {}).get("use_safetensors", True) is False:
        patterns += _PICKLED_WEIGHT_FILES
    try:
        return _download(settings, patterns)
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:  # each hub library raises its own and its HTTP client's errors
        raise CheckpointError(
            f"cannot get model {model!r} from {settings.hub}: {error}. Give a local folder, or the name of "
            "a repository that exists (`qwen3-rag models` lists the published ones)"
        ) from error


def _download(settings: EngineSettings, patterns: list[str]) -> Path:
    if settings.hub == "modelscope":
        try:
            from modelscope import snapshot_download as modelscope_download
        except ImportError as error:
            raise MissingExtraError('hub="modelscope"', "modelscope") from error
        return Path(modelscope_download(settings.model, revision=settings.revision, allow_patterns=patterns))
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(settings.model, revision=settings.revision, allow_patterns=patterns))


def _check_kind(found: ModelKind | None, settings: EngineSettings) -> None:
    if found is not None and found != settings.kind:
        right = "Reranker" if found == "reranking" else "Embedder"
        raise WrongModelKindError(f"{settings.model} is a Qwen3 {found} model: give it to {right}")


def _kind_of_files(folder: Path, config: dict[str, Any]) -> ModelKind | None:
    if any("SequenceClassification" in name for name in config.get("architectures") or []):
        return "reranking"
    saved_by = (_read_json(folder / "config_sentence_transformers.json") or {}).get("model_type")
    if saved_by == "CrossEncoder":
        return "reranking"
    if saved_by == "SentenceTransformer" or (folder / "1_Pooling").is_dir():
        return "embedding"
    return None


def _check_modules(folder: Path) -> None:
    """Refuse Sentence Transformers repositories whose vector is not the normalised last token."""
    advice = 'use backend="sentence-transformers" for it'
    for module in _read_json(folder / "modules.json") or []:
        name = module["type"].rsplit(".", 1)[-1]
        if name not in _KNOWN_MODULES:
            raise CheckpointError(f"{folder} has a {name} module after pooling; {advice}")
        if name == "Pooling":
            pooling = _read_json(folder / module["path"] / "config.json") or {}
            mode = pooling.get("pooling_mode") or [
                key.removeprefix("pooling_mode_")
                for key, value in pooling.items()
                if key.startswith("pooling_mode_") and value is True
            ]
            if mode not in ("lasttoken", ["lasttoken"]):
                raise CheckpointError(
                    f"{folder} was saved with pooling {mode}, not last-token pooling; {advice}"
                )


def _read_json(path: Path) -> Any:
    """Return a JSON file's content, or None when there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def check_share_of_context(max_tokens: int, checkpoint: Checkpoint) -> None:
    """Raise ConfigurationError unless `max_tokens` fits the model's context."""
    if not 1 <= max_tokens <= checkpoint.context:
        raise ConfigurationError(
            f"max_tokens must be 1 to {checkpoint.context} (the model's context), got {max_tokens}"
        )
