"""Runs planned batches through the decoder and takes out what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device import turns
from qwen3_rag.backends.device.attempts import attempt, does_not_fit, in_order, release_memory
from qwen3_rag.backends.device.choice import choose_device, choose_dtype
from qwen3_rag.backends.device.cosines import settle_cosines
from qwen3_rag.backends.device.memory import TokenBudget, choose_token_budget
from qwen3_rag.backends.transformers.beginnings import MOST_TOKENS, Beginning, Beginnings
from qwen3_rag.backends.transformers.decoder import Decoder
from qwen3_rag.backends.transformers.elementwise import EAGER, Elementwise, compiled
from qwen3_rag.backends.transformers.graphs import CudaRecorder, Graphs
from qwen3_rag.backends.transformers.kernels import Heads, find_varlen_kernel
from qwen3_rag.backends.transformers.layout import DeviceBatch, to_device
from qwen3_rag.backends.transformers.linear import PackedLinear, filled_count, pack_linears
from qwen3_rag.backends.transformers.loading import LoadedModel, load_model
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.plan import PackedBatch, plan_batches
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt, TokenIds

_CUDA_BATCH_TOKENS: Final = 16384
"""Most tokens of a batch on CUDA, where a round may be several: while the device computes one, the host packs
and starts the next. It is as many rows as a layer's products take at once anyway. Chosen, not tuned."""


def create(settings: EngineSettings) -> TransformersBackend:
    """Load a model as the settings say. Entry point `transformers` of `qwen3_rag.backends`.

    Raises:
        CheckpointError, ConfigurationError: see `load_model`, `choose_device`, `compiled` and
            `TransformersBackend`.
    """
    device = choose_device(settings.one_device)
    dtype = choose_dtype(settings.dtype, device)
    checkpoint = open_checkpoint(settings, weights=True)
    model_kwargs = settings.loader_options
    compile_kernels, cuda_graphs = (_switch(model_kwargs, name) for name in ("compile", "cuda_graphs"))
    settle_cosines()

    def load() -> TransformersBackend:
        model = load_model(checkpoint, settings.kind, device=device, dtype=dtype, model_kwargs=model_kwargs)
        pack_linears(model.decoder)
        return TransformersBackend(
            model,
            token_budget=settings.token_budget,
            share_prefixes=settings.share_prefixes,
            elementwise=compiled(model.decoder, dtype) if compile_kernels else EAGER,
            cuda_graphs=cuda_graphs,
        )

    return turns.load(device.type, load)


def _switch(model_kwargs: dict[str, Any], name: str) -> bool:
    """Take an option of ours, False if unset, out of those that are for Transformers."""
    value = model_kwargs.pop(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")
    return value


class TransformersBackend:
    """A decoder with packed, prefix-shared execution.

    Args:
        model: the loaded modules.
        token_budget: most tokens of one round: one batch, on CUDA several of at most 16,384; None derives it
            from free memory.
        share_prefixes: compute common beginnings once; on a CPU template and instruction of a query or a few
            are kept for the next calls. (On a GPU such a call waits for kernels to start, not for tokens.)
        elementwise: norms, rotary embedding and gate.
        cuda_graphs: start the kernels of small batches all at once.

    Raises:
        ConfigurationError: `cuda_graphs` where there are none, or no varlen kernel, or several devices.

    Attributes:
        concurrency: 1; a device runs one batch at a time.
        attention: name of the attention path, "torch.nn.attention.varlen", "flash-attn" or
            "sdpa per segment".
    """

    concurrency = 1

    def __init__(
        self,
        model: LoadedModel,
        *,
        token_budget: int | None,
        share_prefixes: bool,
        elementwise: Elementwise = EAGER,
        cuda_graphs: bool = False,
    ) -> None:
        weight = next(p for p in model.decoder.parameters() if p.is_floating_point())
        self.device, self.dtype = weight.device, weight.dtype
        self._model: LoadedModel | None = model
        self._share_prefixes = share_prefixes
        packed = any(isinstance(module, PackedLinear) for module in model.decoder.modules())
        self._rows_for = filled_count if packed else None
        self._decoder: Decoder | None = Decoder(model.decoder, elementwise)
        self._beginnings = Beginnings(MOST_TOKENS if share_prefixes and self.device.type == "cpu" else 0)
        found = find_varlen_kernel(self.device, self.dtype, Heads.of(model.decoder.config))
        self.attention = found[0] if found is not None else "sdpa per segment"
        self._kernel = found[1] if found is not None else None
        self._graphs = self._new_graphs(model.decoder) if cuda_graphs else None
        config = model.decoder.config
        self._budget = TokenBudget(
            (lambda: choose_token_budget(config, self.dtype, self.device))
            if token_budget is None
            else (lambda: token_budget)
        )
        turns.enter(self.device.type)

    @property
    def token_budget(self) -> int:
        """Most tokens of the next round."""
        return self._budget.now()

    @property
    def _batch_tokens(self) -> int:
        budget = self.token_budget
        return min(budget, _CUDA_BATCH_TOKENS) if self.device.type == "cuda" else budget

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts; see `Backend.run`. Batches that do not fit are halved."""
        return turns.compute(self.device.type, partial(self._run, prompts))

    def close(self) -> None:
        """Drop the modules and return cached device memory."""
        if self._model is not None:
            turns.close(self.device.type, self._drop)

    def _drop(self) -> None:
        self._model = self._decoder = self._graphs = None
        self._beginnings.clear()
        release_memory(self.device)

    def _run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        sequences = [prompt.token_ids for prompt in prompts]
        computed = np.zeros(len(sequences), dtype=np.int64)
        outputs: list[Tensor] = []
        order: list[int] = []
        remaining = list(range(len(sequences)))
        while remaining:
            given = [sequences[i] for i in remaining]
            plan = plan_batches(
                given,
                token_budget=self._batch_tokens,
                share_prefixes=self._share_prefixes and not (self._graphs and self._graphs.suit(given)),
            )
            for batch in plan:
                places = [remaining[i] for i in batch.sequences]
                beginning = self._beginnings.choose(batch, min(prompts[i].beginning for i in places))
                known = self._beginnings.get(beginning) if beginning is not None else None
                result = attempt(partial(self._forward, batch, beginning, known), self.device)
                if result is None:
                    # Identical sequences are one computation: planning them anew would not part them.
                    if np.count_nonzero(batch.computed) == 1:
                        raise does_not_fit(prompts[places[0]], self.device)
                    self._budget.ran_out(len(batch.token_ids))
                    break
                self._budget.succeeded()
                if self.device.type == "cpu" and not result.isfinite().all():
                    result = torch.cat([self._alone(sequences[place]) for place in places])
                outputs.append(result)
                order += places
                computed[places] = batch.computed
                computed[places[0]] -= 0 if known is None else len(known)
            finished = set(order)
            remaining = [i for i in remaining if i not in finished]
        return BackendOutput(in_order(outputs, order), computed)

    @torch.inference_mode()
    def _forward(self, batch: PackedBatch, beginning: TokenIds | None, known: Beginning | None) -> Tensor:
        values = self._graphs.run(batch) if self._graphs is not None else None
        if values is not None:
            return values
        if beginning is not None and known is None:
            known = self._compute(beginning)
        return self._values(self._placing(batch, 0 if known is None else len(known)), known)

    def _alone(self, token_ids: TokenIds) -> Tensor:
        """Compute a sequence by itself, so that no other one's NaN is in its numbers.

        In a batch it can be: attention on a CPU multiplies keys behind a sequence's own by zero, and zero times
        NaN is NaN.
        """
        (batch,) = plan_batches([token_ids], token_budget=len(token_ids))
        return self._forward(batch, None, None)

    def _compute(self, token_ids: TokenIds) -> Beginning:
        """Compute and keep a beginning."""
        beginning = Beginning(token_ids)
        (batch,) = plan_batches([token_ids], token_budget=len(token_ids))
        self._values(self._placing(batch), kept=beginning)
        self._beginnings.keep(beginning)
        return beginning

    def _placing(self, batch: PackedBatch, known: int = 0) -> Callable[[torch.device], DeviceBatch]:
        return cache(lambda device: to_device(batch, device, self._kernel, known, self._rows_for))

    def _values(
        self,
        placed: Callable[[torch.device], DeviceBatch],
        known: Beginning | None = None,
        kept: Beginning | None = None,
    ) -> Tensor:
        assert self._model is not None, "run after close"
        assert self._decoder is not None
        ends = self._decoder.final_states(placed, known, kept).float()
        direction = self._model.yes_minus_no
        values = ends if direction is None else ends @ direction.to(ends.device)
        return values.index_select(0, placed(values.device).sequence_ends)

    def _new_graphs(self, decoder: Any) -> Graphs:
        devices = {weight.device for weight in decoder.parameters()}
        if self._kernel is None or devices != {self.device}:
            raise ConfigurationError(
                "cuda_graphs=True needs all weights on one CUDA device of compute capability 8.0 or higher, in "
                f"bfloat16 or float16; got {self.dtype} on {', '.join(sorted(map(str, devices)))}. Else leave "
                "it out of model_kwargs"
            )
        return Graphs(
            lambda batch: self._values(lambda _: batch), self.device, self._kernel, CudaRecorder(self.device)
        )
