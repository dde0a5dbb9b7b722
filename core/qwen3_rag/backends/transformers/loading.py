"""From a checkpoint folder to modules on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from qwen3_rag.backends.device.exclusive import one_at_a_time
from qwen3_rag.backends.switches import check_switch
from qwen3_rag.backends.transformers_version import dtype_keyword, version
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.errors import CheckpointError, ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.tokenization import PromptTokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A Qwen3 decoder without its vocabulary head.

    Attributes:
        decoder: Hugging Face's base model, in evaluation mode.
        yes_minus_no: float32, shape (hidden_size,); the head's row of "yes" minus that of "no". Its dot product
            with the final hidden state is the log-odds. None for embedding models.
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
    """Load a checkpoint's decoder, and for a reranker the two rows of its head that are needed.

    Supports causal and base checkpoints, with tied or untied head, and conversions to sequence classification
    with one score row.

    Args:
        checkpoint: the local files.
        kind: embedding models need no head.
        device: where the modules go, unless `model_kwargs` has a `device_map`.
        dtype: element type of the weights.
        model_kwargs: passed to `from_pretrained`; by default only safetensors are loaded and no remote code
            runs.

    Raises:
        CheckpointError: weights are absent, corrupt or incomplete, a reranker's head is quantised, attention
            is not causal or uses a sliding window, or the rotary embedding is scaled by the sequence length.
        ConfigurationError: `model_kwargs` has an argument that Transformers does not take, a
            `trust_remote_code` that is neither True nor False, or a `device_map` that leaves weights outside
            the devices that run the model.
    """
    trusted = model_kwargs.get("trust_remote_code", False)
    check_switch("trust_remote_code", trusted)
    config = transformers.AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=trusted)
    _check_config(config, checkpoint)
    model_kwargs = _with_rope_theta(checkpoint, config, model_kwargs)
    model_kwargs = _with_device_of_quantised(config, device, model_kwargs)
    if kind == "embedding":
        decoder = _from_pretrained(transformers.AutoModel, checkpoint, dtype, model_kwargs)
        return LoadedModel(_place(decoder, device, model_kwargs), None)
    auto_class = (
        transformers.AutoModelForSequenceClassification
        if checkpoint.is_classifier
        else transformers.AutoModelForCausalLM
    )
    model = _from_pretrained(auto_class, checkpoint, dtype, model_kwargs)
    direction = _answer_direction(model, checkpoint)
    decoder = _place(model.base_model, device, model_kwargs)
    return LoadedModel(decoder, direction.to(next(decoder.parameters()).device, copy=True))


def _answer_direction(model: Any, checkpoint: Checkpoint) -> Tensor:
    """Return the `yes_minus_no` of `LoadedModel`."""
    if not checkpoint.is_classifier:
        yes, no = PromptTokenizer.from_folder(checkpoint.folder).answer_ids()
        head = _unquantised(model.get_output_embeddings().weight, checkpoint)
        return head[yes].float() - head[no].float()
    rows = _unquantised(model.score.weight, checkpoint)
    if len(rows) != 1:
        raise CheckpointError(
            f"{checkpoint.folder} classifies into {len(rows)} labels; a converted Qwen3 reranker has 1"
        )
    return rows[0].float()


def _check_config(config: Any, checkpoint: Checkpoint) -> None:
    """Refuse configurations that this package's forward pass does not implement."""
    if getattr(config, "use_sliding_window", False):
        raise CheckpointError(f"{checkpoint.folder} uses sliding-window attention, which is not supported")
    if not getattr(config, "is_causal", True):
        raise CheckpointError(
            f"{checkpoint.folder} has is_causal=False: each token attends to those after it too, which this "
            'backend does not compute; use backend="sentence-transformers" for it'
        )
    if config.hidden_act != "silu":
        raise CheckpointError(f'{checkpoint.folder} has hidden_act={config.hidden_act!r}; Qwen3 has "silu"')
    _check_positions(config, checkpoint)


def _check_positions(config: Any, checkpoint: Checkpoint) -> None:
    """Refuse rotary scalings that depend on the longest text of a batch: all vectors would change with it."""
    for scaling in (getattr(config, "rope_parameters", None), getattr(config, "rope_scaling", None)):
        kind = (scaling or {}).get("rope_type", (scaling or {}).get("type"))
        if kind in ("dynamic", "longrope"):
            raise CheckpointError(
                f"{checkpoint.folder} scales positions by {kind!r}, with which a text's vector depends on the "
                'texts computed beside it; "default", "linear", "yarn" and "llama3" are supported'
            )


def _unquantised(head: Tensor, checkpoint: Checkpoint) -> Tensor:
    """Return a reranker's head; refuse one whose rows cannot be read."""
    # Quantised weights are integer codes, or tensors of a subclass.
    if type(head) is not nn.Parameter or not head.is_floating_point():
        raise CheckpointError(
            f"the head of {checkpoint.folder} is quantised ({type(head).__name__} of {head.dtype}), and "
            "log-odds are a product with its rows; keep it as it is, in bitsandbytes by "
            'llm_int8_skip_modules=["lm_head"]'
        )
    return head.detach()


def _from_pretrained(
    auto_class: Any, checkpoint: Checkpoint, dtype: torch.dtype, model_kwargs: dict[str, Any]
) -> Any:
    if "attn_implementation" in model_kwargs:
        raise ConfigurationError(
            f"model_kwargs holds attn_implementation={model_kwargs['attn_implementation']!r}, but attention is "
            "this package's own here, FlashAttention where the GPU has it; leave it out, or take "
            'backend="sentence-transformers"'
        )
    settings = {
        "use_safetensors": True,
        "trust_remote_code": False,
        dtype_keyword(): dtype,
        **model_kwargs,
        "attn_implementation": "sdpa",  # always available, never called: attention.py computes attention
        "output_loading_info": True,
    }
    try:
        with one_at_a_time():
            model, report = auto_class.from_pretrained(str(checkpoint.folder), **settings)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # safetensors, torch and transformers raise errors of their own
        # Transformers passes unknown arguments on to the model's class.
        unknown = [name for name in model_kwargs if f"unexpected keyword argument {name!r}" in str(error)]
        if unknown:
            raise ConfigurationError(
                f"model_kwargs holds {unknown[0]!r}, which Transformers does not take for this model: {error}"
            ) from error
        raise CheckpointError(f"cannot load weights from {checkpoint.folder}: {error}") from error
    # Transformers initialises missing weights randomly and only logs a warning.
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} weights, the first being {missing[0]}; "
            "the download is incomplete or this is not the checkpoint of this model"
        )
    _check_config(model.config, checkpoint)  # `model_kwargs` may have changed it
    return model.eval().requires_grad_(False)


def _with_rope_theta(checkpoint: Checkpoint, config: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return loading arguments that give the rotary embedding the checkpoint's base.

    Transformers 5 saves it in `rope_parameters`, which 4 silently ignores: it would use its default base, and
    every vector and score would be wrong.

    Raises:
        CheckpointError: positions are scaled in a way that the installed Transformers does not read.
    """
    saved = checkpoint.config
    rope = saved.get("rope_parameters")
    if not rope or "rope_theta" in saved or version() >= (5, 0):
        return model_kwargs
    if rope.get("rope_type", "default") != "default" or "rope_theta" not in rope:
        raise CheckpointError(
            f"{checkpoint.folder} was saved by transformers 5 with rope_parameters={rope}, which transformers "
            f'{transformers.__version__} does not read: pip install "transformers>=5"'
        )
    config.rope_theta = float(rope["rope_theta"])
    return {"config": config, **model_kwargs}


def _with_device_of_quantised(
    config: Any, device: torch.device, model_kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return loading arguments that create quantised weights on the device that runs the model.

    Without a `device_map` bitsandbytes uses the current CUDA device, whichever was chosen, and other quantisers
    the CPU, whose weight layout a GPU may not support.
    """
    chosen = (model_kwargs.get("quantization_config"), getattr(config, "quantization_config", None))
    if chosen == (None, None) or "device_map" in model_kwargs:
        return model_kwargs
    return {**model_kwargs, "device_map": {"": str(device)}}


def _place(decoder: nn.Module, device: torch.device, model_kwargs: dict[str, Any]) -> nn.Module:
    if "device_map" not in model_kwargs:
        return decoder.to(device)
    # Accelerate keeps offloaded weights on "meta" and fetches them for each forward call of a module.
    if any(parameter.is_meta for parameter in decoder.parameters()):
        raise ConfigurationError(
            f"device_map={model_kwargs['device_map']!r} leaves some weights on the CPU or disk while the model "
            "runs elsewhere, which is not supported; use a smaller model, a shorter dtype or more devices"
        )
    return decoder
