"""From a checkpoint folder to modules of Sentence Transformers that take token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn

from qwen3_rag.backends.device.exclusive import one_at_a_time
from qwen3_rag.backends.sentence_transformers.options import Options
from qwen3_rag.backends.transformers_version import dtype_keyword
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.errors import CheckpointError
from qwen3_rag.models import ModelKind
from qwen3_rag.saved_modules import SavedModule, saved_modules

_TAKES_TOKEN_IDS: Final = {"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "LogitScore"}
"""Modules that compute from token ids, a mask and each other's outputs alone."""

_MONOTONE: Final = (nn.Sigmoid, nn.Identity)
"""Activations of a CrossEncoder whose input may be read as log-odds: both keep the order of documents."""

Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadedModel:
    """A model of Sentence Transformers and how to feed it.

    Attributes:
        model: `SentenceTransformer` or `CrossEncoder`, in evaluation mode.
        output: name of the feature that its last module writes.
        keeps_logits: how many last positions' logits a causal model is told to compute (`logits_to_keep`),
            instead of (tokens, vocabulary); None for models without logits.
        pads_left: padding is on the left, for a module that reads the last column rather than the last unmasked
            one. Otherwise it is on the right, where a causal model does not attend to it.
        saved: the folder was saved by Sentence Transformers, so its inputs are known.
    """

    model: SentenceTransformer | CrossEncoder
    output: str
    keeps_logits: int | None
    pads_left: bool
    saved: bool

    @property
    def transformer(self) -> Any:
        """The first module: tokenizer and Hugging Face model."""
        return self.model[0]


def load_model(
    checkpoint: Checkpoint, kind: ModelKind, *, device: torch.device, dtype: torch.dtype, options: Options
) -> LoadedModel:
    """Load a checkpoint as `SentenceTransformer` or `CrossEncoder`.

    A plain Transformers checkpoint gets the pooling of the published repositories, the last token's, where the
    library by default would take the mean.

    Args:
        checkpoint: the local files.
        kind: which of the two classes.
        device: where the modules go, unless `options` has a `device_map`.
        dtype: element type of the weights.
        options: parsed `model_kwargs`.

    Raises:
        CheckpointError: files are unreadable, have no head for scores, or have a module that needs more than
            token ids.
    """
    folder = checkpoint.folder
    saved = (folder / "modules.json").is_file()
    _check_modules(folder, trusted=options.trust_remote_code)
    arguments: dict[str, Any] = {
        "device": None if options.device_map is not None else str(device),
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": True,
        "model_kwargs": {**options.from_pretrained(), dtype_keyword(): dtype},
    }
    if kind == "reranking":
        _check_head(checkpoint, saved)
        cross_encoder = _guarded(folder, lambda: CrossEncoder(str(folder), **arguments))
        loaded = _as_reranker(cross_encoder, folder, saved)
    else:
        embedder = _guarded(folder, lambda: _load_embedder(folder, saved, checkpoint.hidden_size, arguments))
        loaded = LoadedModel(embedder, "sentence_embedding", None, pads_left=False, saved=saved)
    loaded.model.eval().requires_grad_(False)
    return loaded


def _load_embedder(
    folder: Path, saved: bool, hidden_size: int, arguments: dict[str, Any]
) -> SentenceTransformer:
    if saved:
        return SentenceTransformer(str(folder), **arguments)
    shared = {"trust_remote_code": arguments["trust_remote_code"], "local_files_only": True}
    transformer = Transformer(
        str(folder),
        model_kwargs={**shared, **arguments["model_kwargs"]},
        processor_kwargs=shared,
        config_kwargs=dict(shared),
    )
    modules = [transformer, Pooling(hidden_size, "lasttoken")]
    return SentenceTransformer(modules=modules, device=arguments["device"])


def _as_reranker(model: CrossEncoder, folder: Path, saved: bool) -> LoadedModel:
    if model.num_labels != 1:
        raise CheckpointError(f"{folder} classifies into {model.num_labels} labels; a reranker has 1")
    if not isinstance(model.activation_fn, _MONOTONE):
        raise CheckpointError(
            f"{folder} was saved with activation {type(model.activation_fn).__name__}; scores here are "
            "sigmoid(log-odds), which only Sigmoid and Identity agree with in order"
        )
    reads_logits = any(isinstance(module, LogitScore) for module in model)
    return LoadedModel(model, "scores", 1 if reads_logits else None, pads_left=reads_logits, saved=saved)


def _check_modules(folder: Path, *, trusted: bool) -> None:
    for module in saved_modules(folder):
        if module.name not in _TAKES_TOKEN_IDS:
            raise CheckpointError(
                f"{folder} has a {module.name} module, which needs more than token ids; supported are "
                f"{', '.join(sorted(_TAKES_TOKEN_IDS))}. Use that library's own class for this checkpoint"
            )
        if module.name == "Pooling" and module.config.get("include_prompt", True) is False:
            raise CheckpointError(
                f"{folder} leaves the prompt's tokens out of pooling (include_prompt=false), which is not "
                "supported; use that library's own class for this checkpoint"
            )
        if not trusted and (foreign := _foreign_class(module)) is not None:
            raise CheckpointError(
                f"{folder} needs the class {foreign}, which is neither Sentence Transformers' nor PyTorch's. If"
                ' you trust its author, pass model_kwargs={"trust_remote_code": True}'
            )


def _foreign_class(module: SavedModule) -> str | None:
    """Return the name of a class that is run for a module and is nobody's we know; None if there is none.

    The library before 6.0 takes such a module from a local folder without being told to trust it. In place of
    an activation that it does not trust it takes another, and only logs a warning.
    """
    if module.is_foreign:
        return module.type
    activation = str(module.config.get("activation_function") or "torch.")
    return None if activation.startswith("torch.") else activation


def _check_head(checkpoint: Checkpoint, saved: bool) -> None:
    """Refuse checkpoints without a head: `CrossEncoder` would add a random one and only log a warning."""
    names = checkpoint.config.get("architectures") or []
    if not saved and not any(name.endswith(("ForCausalLM", "ForSequenceClassification")) for name in names):
        raise CheckpointError(
            f"{checkpoint.folder} has architecture {', '.join(names) or 'unknown'} and so no head to score "
            "with; a reranker is ...ForCausalLM or ...ForSequenceClassification, or was saved by CrossEncoder"
        )


def _guarded(folder: Path, load: Callable[[], Model]) -> Model:
    try:
        with one_at_a_time():
            return load()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # safetensors, torch, transformers and this library raise errors of their own
        raise CheckpointError(f"Sentence Transformers cannot load {folder}: {error}") from error
