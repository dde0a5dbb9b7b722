"""Where a checkpoint's files are and what they say, before any weight is read. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qwen3_rag.errors import CheckpointError, ConfigurationError, MissingExtraError, WrongModelKindError
from qwen3_rag.file_versions import file_versions
from qwen3_rag.json_files import positive_integer, read_object
from qwen3_rag.models import ModelKind, kind_of_name
from qwen3_rag.saved_modules import SavedModule, output_size, pooling_modes, saved_modules
from qwen3_rag.settings import EngineSettings
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
        config: `config.json` as it was read.
    """

    folder: Path
    hidden_size: int
    context: int
    query_prompt: str | None
    document_prompt: str
    is_classifier: bool
    config: Mapping[str, Any]


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
    config = read_object(folder / "config.json")
    if config is None or settings.traits.runs_here:  # a server's weights are elsewhere
        _check_adapter(folder, has_model=config is not None)
    if config is None:
        raise CheckpointError(f"{folder} holds no config.json: it is not a model checkpoint")
    if config.get("model_type") != "qwen3":
        raise CheckpointError(
            f"{settings.model} is a {config.get('model_type')!r} model; only Qwen3 checkpoints run here"
        )
    is_classifier = any("SequenceClassification" in name for name in config.get("architectures") or [])
    saved = read_object(folder / "config_sentence_transformers.json") or {}
    _check_kind("reranking" if is_classifier else _kind_saved(saved, folder), settings)
    prompts = _prompts_saved(saved, folder)
    hidden_size = positive_integer(config, "hidden_size", folder)
    if settings.traits.runs_saved_modules:
        if settings.kind == "embedding":
            hidden_size = output_size(folder, hidden_size)
    elif settings.kind == "embedding":
        _check_modules(folder)
    else:
        _check_head(folder)
    return Checkpoint(
        folder=folder,
        hidden_size=hidden_size,
        context=positive_integer(
            {"max_position_embeddings": 32768, **config}, "max_position_embeddings", folder
        ),
        # Sentence Transformers saves empty prompts for models that were given none.
        query_prompt=prompts.get("query") or None,
        document_prompt=prompts.get("document") or prompts.get("passage") or "",
        is_classifier=is_classifier,
        config=config,
    )


def _local_folder(settings: EngineSettings, *, weights: bool) -> Path:
    model = settings.model
    if model == DEMO_MODEL:
        return Path(__file__).parent / "demo" / "models" / f"demo-{_DEMO_NAMES[settings.kind]}"
    folder = _given_folder(model)
    if folder is not None:
        return folder
    if model.startswith(("/", "./", "../", "~")) or model.endswith(os.sep):
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


def resolve_local_model(settings: EngineSettings) -> tuple[EngineSettings, object]:
    """Return settings that mean the same folder wherever this process works later, and its files' version.

    Returns:
        The version is equal as long as nothing in a local folder is changed; None for a hub's repository.
    """
    folder = None if settings.model == DEMO_MODEL else _given_folder(settings.model)
    if folder is None:
        return settings, None
    version = file_versions(folder, [*_WEIGHT_FILES, *_PICKLED_WEIGHT_FILES, *_MODULE_FILES])
    if not settings.traits.runs_here:
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


def _check_adapter(folder: Path, *, has_model: bool) -> None:
    """Refuse adapters: if PEFT happens to be installed, Transformers adds one to the weights beside it, also to
    those that hold it already."""
    if not (folder / "adapter_config.json").is_file():
        return
    if has_model:
        raise CheckpointError(
            f"{folder} holds a model and an adapter (adapter_config.json), and cannot tell whether the model "
            "has it already. If it has (merge_and_unload of PEFT), remove the adapter's files, in a copy of a "
            "hub's repository; else merge them, and save the result to another folder"
        )
    raise CheckpointError(
        f"{folder} holds an adapter without its model: merge them (merge_and_unload of PEFT), and save "
        "the result with the tokenizer beside, in another folder"
    )


def _kind_saved(saved: Mapping[str, Any], folder: Path) -> ModelKind | None:
    """Return the kind of model as which Sentence Transformers saved a folder, if it did.

    Args:
        saved: its `config_sentence_transformers.json`, empty without one.
        folder: of the checkpoint.
    """
    saved_as = saved.get("model_type")
    if saved_as == "CrossEncoder":
        return "reranking"
    if saved_as == "SentenceTransformer" or (folder / "1_Pooling").is_dir():
        return "embedding"
    return None


def _prompts_saved(saved: Mapping[str, Any], folder: Path) -> Mapping[str, str | None]:
    """Return the prompts of `config_sentence_transformers.json`, by name; arguments as for `_kind_saved`."""
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise CheckpointError(
            f"the prompts in config_sentence_transformers.json of {folder} must be strings by name, "
            f"got {prompts!r:.200}"
        )
    return prompts


def _check_modules(folder: Path) -> None:
    """Refuse Sentence Transformers repositories whose vector is not the normalised last token."""
    for module in saved_modules(folder):
        _check_library(module, folder)
        if module.name not in _KNOWN_MODULES:
            raise CheckpointError(f"{folder} has a {module.name} module after pooling; {_OTHER_BACKEND}")
        if module.name == "Pooling":
            modes = pooling_modes(module.config)
            if modes != ["lasttoken"]:
                raise CheckpointError(
                    f"{folder} was saved with pooling {modes}, not last-token pooling; {_OTHER_BACKEND}"
                )


def _check_head(folder: Path) -> None:
    """Refuse a saved `CrossEncoder` whose score is not the log-odds of yes and no, or of its one label."""
    for module in saved_modules(folder):
        _check_library(module, folder)
        if module.name == "LogitScore":
            _check_answers(folder, module.config)
        elif module.name != "Transformer":
            raise CheckpointError(f"{folder} scores with a {module.name} module; {_OTHER_BACKEND}")


def _check_library(module: SavedModule, folder: Path) -> None:
    """Refuse a module that only has the name of one that is known."""
    if module.is_foreign:
        raise CheckpointError(
            f"{folder} has a module {module.type}, which is not Sentence Transformers' own; {_OTHER_BACKEND}"
        )


def _check_answers(folder: Path, saved: Mapping[str, Any]) -> None:
    answers = saved.get("true_token_id"), saved.get("false_token_id")
    yes_and_no = PromptTokenizer.from_folder(folder).answer_ids()
    if answers != yes_and_no:
        raise CheckpointError(
            f"{folder} was saved to score with true_token_id={answers[0]} and false_token_id={answers[1]}; "
            f"Qwen3's answers are yes and no, tokens {yes_and_no[0]} and {yes_and_no[1]} of its tokenizer. "
            f"To score as it was saved, {_OTHER_BACKEND}"
        )


def check_max_tokens(max_tokens: int, checkpoint: Checkpoint) -> None:
    """Raise ConfigurationError unless `max_tokens` fits the model's context."""
    if not 1 <= max_tokens <= checkpoint.context:
        raise ConfigurationError(
            f"max_tokens must be 1 to {checkpoint.context} (the model's context), got {max_tokens}"
        )
