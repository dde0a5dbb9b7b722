"""Runs planned batches through the decoder and takes out what is asked for."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.transformers.attention import to_device
from qwen3_rag.backends.transformers.device import choose_device, choose_dtype
from qwen3_rag.backends.transformers.kernels import find_varlen_kernel
from qwen3_rag.backends.transformers.loading import LoadedModel, load_model
from qwen3_rag.backends.transformers.memory import choose_token_budget, is_out_of_memory
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.errors import OutOfMemoryError
from qwen3_rag.plan import PackedBatch, plan_batches
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import TokenIds


def create(settings: EngineSettings) -> TransformersBackend:
    """Load a model as the settings say. Entry point `transformers` of `qwen3_rag.backends`.

    Raises:
        CheckpointError, ConfigurationError: see `load_model` and `choose_device`.
    """
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    checkpoint = open_checkpoint(settings, weights=True)
    model = load_model(
        checkpoint, settings.kind, device=device, dtype=dtype, model_kwargs=dict(settings.model_kwargs or {})
    )
    return TransformersBackend(
        model, token_budget=settings.token_budget, share_prefixes=settings.share_prefixes
    )


class TransformersBackend:
    """A decoder with packed, prefix-shared execution.

    Args:
        model: the loaded modules.
        token_budget: most tokens of one batch; None derives it from free memory.
        share_prefixes: compute common beginnings once.

    Attributes:
        attention: name of the attention path, "torch.nn.attention.varlen", "flash-attn" or
            "sdpa per segment".
    """

    def __init__(self, model: LoadedModel, *, token_budget: int | None, share_prefixes: bool) -> None:
        weight = next(p for p in model.decoder.parameters() if p.is_floating_point())
        self.device, self.dtype = weight.device, weight.dtype
        self._model: LoadedModel | None = model
        self._share_prefixes = share_prefixes
        found = find_varlen_kernel(self.device, self.dtype)
        self.attention = found[0] if found is not None else "sdpa per segment"
        self._kernel = found[1] if found is not None else None
        self.token_budget = (
            choose_token_budget(model.decoder.config, self.dtype, self.device)
            if token_budget is None
            else token_budget
        )

    def run(self, sequences: Sequence[TokenIds]) -> BackendOutput:
        """Run token sequences; see `Backend.run`. Batches that do not fit are halved."""
        computed = np.zeros(len(sequences), dtype=np.int64)
        outputs: list[Tensor] = []
        order: list[int] = []
        remaining = list(range(len(sequences)))
        while remaining:
            plan = plan_batches(
                [sequences[i] for i in remaining],
                token_budget=self.token_budget,
                share_prefixes=self._share_prefixes,
            )
            for batch in plan:
                result = self._forward_or_none(batch)
                if result is None:
                    self.token_budget = self._halved(batch)
                    break
                given = [remaining[i] for i in batch.sequences]
                outputs.append(result)
                order += given
                computed[given] = batch.computed
            finished = set(order)
            remaining = [i for i in remaining if i not in finished]
        values = torch.cat(outputs).cpu().numpy() if outputs else np.zeros(0, np.float32)
        restored = np.empty_like(values)
        restored[order] = values
        return BackendOutput(restored, computed)

    def close(self) -> None:
        """Drop the modules and return cached device memory."""
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def _forward_or_none(self, batch: PackedBatch) -> Tensor | None:
        """Return the batch's values on the device, or None when memory ran out."""
        try:
            return self._forward(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback kept the failed batch's tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @torch.inference_mode()
    def _forward(self, batch: PackedBatch) -> Tensor:
        assert self._model is not None, "run after close"
        moved = to_device(batch, self.device, self._kernel)
        hidden: Tensor = self._model.decoder(
            input_ids=moved.input_ids,
            position_ids=moved.position_ids,
            # A 4-D mask is handed through untouched by every release; without one, a mask of
            # (tokens, tokens) would be built. The layout says what sees what.
            attention_mask=torch.empty(1, 1, 1, 1, dtype=self.dtype, device=self.device),
            use_cache=False,
            packed_layout=moved.layout,
        ).last_hidden_state
        last = hidden[0].index_select(0, moved.last_rows).float()
        direction = self._model.yes_minus_no
        return last if direction is None else last @ direction

    def _halved(self, batch: PackedBatch) -> int:
        # Identical sequences are one computation: planning them anew would not part them.
        if np.count_nonzero(batch.computed) == 1:
            raise OutOfMemoryError(
                f"a text of {len(batch.token_ids)} tokens alone does not fit into the memory of "
                f"{self.device}; lower max_tokens, or use a smaller model, a shorter dtype or a larger device"
            )
        return max(1, len(batch.token_ids) // 2)
