"""From a checkpoint folder to modules on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from qwen3_rag.backends.transformers.attention import PACKED_ATTENTION
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.errors import CheckpointError
from qwen3_rag.models import ModelKind
from qwen3_rag.tokenization import PromptTokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A Qwen3 decoder without its vocabulary head.

    Attributes:
        decoder: Hugging Face's base model, in evaluation mode.
        yes_minus_no: float32, shape (hidden_size,); the direction of the final hidden state whose
            product with it is the log-odds. None for embedding models.
    """

    decoder: nn.Module
    yes_minus_no: Tensor | None


def load_model(
    checkpoint: Checkpoint,
    kind: ModelKind,
    *,
    device: torch.device,
    dtype: torch.dtype,
    model_kwargs: dict[str, Any],
) -> LoadedModel:
    """Load a checkpoint's decoder, and for a reranker the two rows of its head that count.

    Causal and base checkpoints, with tied or untied head, and conversions to sequence
    classification with one score row are understood.

    Args:
        checkpoint: the local files.
        kind: embedding models need no head.
        device: where the modules go, unless `model_kwargs` has a `device_map`.
        dtype: element type of the weights.
        model_kwargs: passed to `from_pretrained`; safetensors only and no remote code unless it
            says otherwise.

    Raises:
        CheckpointError: weights are absent, corrupt or incomplete, or attention uses a sliding window.
    """
    config = transformers.AutoConfig.from_pretrained(
        str(checkpoint.folder), trust_remote_code=model_kwargs.get("trust_remote_code", False)
    )
    if getattr(config, "use_sliding_window", False):
        raise CheckpointError(f"{checkpoint.folder} uses sliding-window attention, which is not supported")
    classifier = any("SequenceClassification" in name for name in config.architectures or [])
    if kind == "embedding":
        decoder = _from_pretrained(transformers.AutoModel, checkpoint, dtype, model_kwargs)
        return LoadedModel(_place(decoder, device, model_kwargs), None)
    if classifier:
        model = _from_pretrained(
            transformers.AutoModelForSequenceClassification, checkpoint, dtype, model_kwargs
        )
        rows = model.score.weight
        if len(rows) != 1:
            raise CheckpointError(
                f"{checkpoint.folder} classifies into {len(rows)} labels; a converted Qwen3 reranker has 1"
            )
        direction = rows[0].detach().float()
    else:
        model = _from_pretrained(transformers.AutoModelForCausalLM, checkpoint, dtype, model_kwargs)
        yes, no = PromptTokenizer.from_folder(checkpoint.folder).answer_ids()
        head = model.get_output_embeddings().weight.detach()
        direction = head[yes].float() - head[no].float()
    decoder = _place(model.base_model, device, model_kwargs)
    return LoadedModel(decoder, direction.to(next(decoder.parameters()).device, copy=True))


def _from_pretrained(
    auto_class: Any, checkpoint: Checkpoint, dtype: torch.dtype, model_kwargs: dict[str, Any]
) -> Any:
    settings = {
        "use_safetensors": True,
        "trust_remote_code": False,
        _dtype_keyword(): dtype,
        **model_kwargs,
        "attn_implementation": PACKED_ATTENTION,
        "output_loading_info": True,
    }
    try:
        model, report = auto_class.from_pretrained(str(checkpoint.folder), **settings)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # safetensors, torch and transformers each raise their own
        raise CheckpointError(f"cannot load weights from {checkpoint.folder}: {error}") from error
    # Transformers fills missing weights with random numbers and only logs a warning.
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} weights, the first being {missing[0]}; "
            "the download is incomplete or this is not the checkpoint of this model"
        )
    return model.eval().requires_grad_(False)


def _dtype_keyword() -> str:
    """`torch_dtype` was renamed `dtype` in transformers 4.56."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def _place(decoder: nn.Module, device: torch.device, model_kwargs: dict[str, Any]) -> nn.Module:
    return decoder if "device_map" in model_kwargs else decoder.to(device)
