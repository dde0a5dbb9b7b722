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
from qwen3_rag.tokenization import PromptTokenizer

DEMO_MODEL: Final = "demo"
"""Names the small trained pair inside this package: `Embedder("demo")`, `Reranker("demo")`."""

_DEMO_NAMES: Final[dict[ModelKind, str]] = {"embedding": "embedding", "reranking": "reranker"}

_DESCRIPTION_FILES: Final = ["*.json", "*.txt", "*.jinja"]
_WEIGHT_FILES: Final = [*_DESCRIPTION_FILES, "*.safetensors"]
_PICKLED_WEIGHT_FILES: Final = ["*.bin"]
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
    hidden_size = int(config["hidden_size"])
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
        int(config.get("max_position_embeddings", 32768)),
        prompts.get("query") or None,
        prompts.get("document") or prompts.get("passage") or "",
    )


def _local_folder(settings: EngineSettings, *, weights: bool) -> Path:
    model = settings.model
    if model == DEMO_MODEL:
        return Path(__file__).parent / "demo" / "models" / f"demo-{_DEMO_NAMES[settings.kind]}"
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
    for module in _read_json(folder / "modules.json") or []:
        name = module["type"].rsplit(".", 1)[-1]
        if name not in _KNOWN_MODULES:
            raise CheckpointError(f"{folder} has a {name} module after pooling; {_OTHER_BACKEND}")
        if name == "Pooling":
            modes = _pooling_modes(_read_json(folder / module["path"] / "config.json") or {})
            if modes != ["lasttoken"]:
                raise CheckpointError(
                    f"{folder} was saved with pooling {modes}, not last-token pooling; {_OTHER_BACKEND}"
                )


def _check_head(folder: Path) -> None:
    """Refuse a saved `CrossEncoder` whose score is not the log-odds of yes and no, or of its one label."""
    for module in _read_json(folder / "modules.json") or []:
        name = module["type"].rsplit(".", 1)[-1]
        if name == "LogitScore":
            _check_answers(folder, _read_json(folder / module["path"] / "config.json") or {})
        elif name != "Transformer":
            raise CheckpointError(f"{folder} scores with a {name} module; {_OTHER_BACKEND}")


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
    for module in _read_json(folder / "modules.json") or []:
        name = module["type"].rsplit(".", 1)[-1]
        config = _read_json(folder / module["path"] / "config.json") or {}
        if name == "Pooling":
            size = hidden_size * len(_pooling_modes(config))
        elif name == "Dense":
            size = int(config["out_features"])
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
