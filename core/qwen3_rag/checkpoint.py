"""Where a checkpoint's files are and what they say, before any weight is read. Needs no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qwen3_rag.errors import CheckpointError, ConfigurationError, MissingExtraError, WrongModelKindError
from qwen3_rag.models import ModelKind, kind_of_name
from qwen3_rag.settings import EngineSettings
from qwen3_rag.stamps import file_stamps
from qwen3_rag.tokenization import PromptTokenizer

DEMO_MODEL: Final = "demo"
"""Names the small trained pair inside this package: `Embedder("demo")`, `Reranker("demo")`."""

_DEMO_NAMES: Final[dict[ModelKind, str]] = {"embedding": "embedding", "reranking": "reranker"}

_DESCRIPTION_FILES: Final = ["*.json", "*.txt", "*.jinja"]
_WEIGHT_FILES: Final = [*_DESCRIPTION_FILES, "*.safetensors"]
_PICKLED_WEIGHT_FILES: Final = ["*.bin"]
_MODULE_FILES: Final = ["[0-9]*_*/*"]
"""Of the modules that Sentence Transformers saves behind the model."""

_KNOWN_MODULES: Final = {"Transformer", "Pooling", "Normalize"}
_OTHER_BACKEND: Final = 'use backend="sentence-transformers" for it'


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and what its small files state.

    Attributes:
        folder: local folder of the files.
        hidden_size: length of the vector that the backend computes, not cut: that of the final hidden
            state, unless a module saved by Sentence Transformers changes it.
        context: longest input in tokens.
        query_prompt: text before queries, as saved by Sentence Transformers; None when not saved.
        document_prompt: text before documents, likewise; published checkpoints have none.
        is_classifier: whether it was converted to sequence classification, and so is a reranker with a score
            head of its own.
    """

    folder: Path
    hidden_size: int
    context: int
    query_prompt: str | None
    document_prompt: str
    is_classifier: bool


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
    config = _read_object(folder / "config.json")
    if config is None:
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{folder} holds an adapter without its model: merge them (merge_and_unload of PEFT), and save "
                "the result with the tokenizer beside"
            )
        raise CheckpointError(f"{folder} holds no config.json: it is not a model checkpoint")
    if config.get("model_type") != "qwen3":
        raise CheckpointError(
            f"{settings.model} is a {config.get('model_type')!r} model; only Qwen3 checkpoints run here"
        )
    is_classifier = any("SequenceClassification" in name for name in config.get("architectures") or [])
    _check_kind("reranking" if is_classifier else _kind_saved(folder), settings)
    prompts = (_read_object(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    hidden_size = _whole(config, "hidden_size", folder)
    if settings.backend == "sentence-transformers":
        if settings.kind == "embedding":
            hidden_size = _output_size(folder, hidden_size)
    elif settings.kind == "embedding":
        _check_modules(folder)
    else:
        _check_head(folder)
    return Checkpoint(
        folder,
        hidden_size,
        _whole({"max_position_embeddings": 32768, **config}, "max_position_embeddings", folder),
        prompts.get("query") or None,
        prompts.get("document") or prompts.get("passage") or "",
        is_classifier,
    )


def _local_folder(settings: EngineSettings, *, weights: bool) -> Path:
    model = settings.model
    if model == DEMO_MODEL:
        return Path(__file__).parent / "demo" / "models" / f"demo-{_DEMO_NAMES[settings.kind]}"
    folder = _given_folder(model)
    if folder is not None:
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
        reason = str(error).rstrip(". \n")
        raise CheckpointError(
            f"cannot get model {model!r} from {settings.hub}: {reason}. Give a local folder, or the name of "
            "a repository that exists (`qwen3-rag models` lists the published ones)"
        ) from error


def settled(settings: EngineSettings) -> tuple[EngineSettings, object]:
    """Return settings that mean the same folder wherever this process works later, and its files' version.

    Returns:
        The version is equal as long as nothing in a local folder is changed; None for a hub's repository.
    """
    folder = None if settings.model == DEMO_MODEL else _given_folder(settings.model)
    if folder is None:
        return settings, None
    version = file_stamps(folder, [*_WEIGHT_FILES, *_PICKLED_WEIGHT_FILES, *_MODULE_FILES])
    if settings.backend == "remote":
        return settings, (str(folder), version)  # its server may know the model by the name as it was given
    return replace(settings, model=str(folder)), version


def _given_folder(model: str) -> Path | None:
    """Return the local folder of this name, absolute; None if there is none."""
    folder = Path(model).expanduser()
    return folder.absolute() if folder.is_dir() else None


def _download(settings: EngineSettings, patterns: list[str]) -> Path:
    if settings.hub == "modelscope":
        try:
            from modelscope import snapshot_download as modelscope_download
        except ImportError as error:
            raise MissingExtraError('hub="modelscope"', "modelscope") from error
        download = modelscope_download
    else:
        from huggingface_hub import snapshot_download as download

    options = {"revision": settings.revision, "allow_patterns": patterns, **settings.hub_options}
    return Path(download(settings.model, **options))


def _check_kind(found: ModelKind | None, settings: EngineSettings) -> None:
    if found is not None and found != settings.kind:
        right = "Reranker" if found == "reranking" else "Embedder"
        raise WrongModelKindError(f"{settings.model} is a Qwen3 {found} model: give it to {right}")


def _kind_saved(folder: Path) -> ModelKind | None:
    """Return the kind of model as which Sentence Transformers saved a folder, if it did."""
    saved_by = (_read_object(folder / "config_sentence_transformers.json") or {}).get("model_type")
    if saved_by == "CrossEncoder":
        return "reranking"
    if saved_by == "SentenceTransformer" or (folder / "1_Pooling").is_dir():
        return "embedding"
    return None


def _check_modules(folder: Path) -> None:
    """Refuse Sentence Transformers repositories whose vector is not the normalised last token."""
    for module in _modules(folder):
        if module.name not in _KNOWN_MODULES:
            raise CheckpointError(f"{folder} has a {module.name} module after pooling; {_OTHER_BACKEND}")
        if module.name == "Pooling":
            modes = _pooling_modes(module.config)
            if modes != ["lasttoken"]:
                raise CheckpointError(
                    f"{folder} was saved with pooling {modes}, not last-token pooling; {_OTHER_BACKEND}"
                )


def _check_head(folder: Path) -> None:
    """Refuse a saved `CrossEncoder` whose score is not the log-odds of yes and no, or of its one label."""
    for module in _modules(folder):
        if module.name == "LogitScore":
            _check_answers(folder, module.config)
        elif module.name != "Transformer":
            raise CheckpointError(f"{folder} scores with a {module.name} module; {_OTHER_BACKEND}")


def _check_answers(folder: Path, saved: dict[str, Any]) -> None:
    answers = saved.get("true_token_id"), saved.get("false_token_id")
    yes_and_no = PromptTokenizer.from_folder(folder).answer_ids()
    if answers != yes_and_no:
        raise CheckpointError(
            f"{folder} was saved to score with true_token_id={answers[0]} and false_token_id={answers[1]}; "
            f"Qwen3's answers are yes and no, tokens {yes_and_no[0]} and {yes_and_no[1]} of its tokenizer. "
            f"To score as it was saved, {_OTHER_BACKEND}"
        )


def _output_size(folder: Path, hidden_size: int) -> int:
    """Return the length of the vectors after all saved modules: several poolings add up, Dense decides."""
    size = hidden_size
    for module in _modules(folder):
        if module.name == "Pooling":
            size = hidden_size * len(_pooling_modes(module.config))
        elif module.name == "Dense":
            size = _whole(module.config, "out_features", folder)
    return size


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """Return the poolings that a saved configuration asks for, in either of the library's spellings."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    return [
        key.removeprefix("pooling_mode_")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]


@dataclass(frozen=True)
class _Module:
    """A module that Sentence Transformers saved: the last part of its class's name, and its settings."""

    name: str
    config: dict[str, Any]


def _modules(folder: Path) -> list[_Module]:
    """Return the modules of a folder, in their order; none where that library did not save it."""
    path = folder / "modules.json"
    saved = _read_json(path)
    if saved is None:
        return []
    try:
        places = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in saved]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} must list modules with type and path, got {saved!r:.200}") from error
    return [_Module(name, _read_object(folder / place / "config.json") or {}) for name, place in places]


def _whole(config: dict[str, Any], name: str, folder: Path) -> int:
    """Return a whole number of a configuration."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"a config.json of {folder} must have {name}, a whole number, got {value!r}")
    return value


def _read_object(path: Path) -> dict[str, Any] | None:
    """Return a JSON object's content, or None when there is no such file."""
    found = _read_json(path)
    if found is not None and not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


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
