"""Runs prompts in planned batches through the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device import exclusive
from qwen3_rag.backends.device.choice import choose_device, choose_dtype
from qwen3_rag.backends.device.memory import TokenBudget, choose_token_budget
from qwen3_rag.backends.device.out_of_memory import attempt, release_memory, too_large_error
from qwen3_rag.backends.device.outputs import join_outputs
from qwen3_rag.backends.device.trigonometry import warm_up_trigonometry
from qwen3_rag.backends.switches import check_switch
from qwen3_rag.backends.transformers.attention import attention_path
from qwen3_rag.backends.transformers.decoder import Decoder
from qwen3_rag.backends.transformers.elementwise import EAGER, Elementwise, compiled
from qwen3_rag.backends.transformers.graphs import CudaRecorder, Graphs
from qwen3_rag.backends.transformers.kernels import Heads, find_varlen_kernel
from qwen3_rag.backends.transformers.layout import DeviceBatch, to_device
from qwen3_rag.backends.transformers.loading import LoadedModel, load_model
from qwen3_rag.backends.transformers.packed_linear import PackedLinear, pack_linears, padded_batch_row_count
from qwen3_rag.backends.transformers.prefix_cache import MAX_CACHED_TOKENS, CachedPrefix, PrefixCache
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.plan import PackedBatch, plan_batches
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt, TokenIds

_CUDA_BATCH_TOKENS: Final = 16384
"""Most tokens of a batch on CUDA, where a round may have several: while the device computes one, the host packs
and launches the next. A layer computes blocks of at most so many rows anyway. Chosen, not tuned."""


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
    warm_up_trigonometry()

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

    return exclusive.load(device.type, load)


def _switch(model_kwargs: dict[str, Any], name: str) -> bool:
    """Remove an option of this backend from those for Transformers, and return its value, False if unset."""
    value: bool = model_kwargs.pop(name, False)
    check_switch(name, value)
    return value


class TransformersBackend:
    """A decoder with packed, prefix-shared execution.

    Args:
        model: the loaded modules.
        token_budget: most tokens of one round: one batch, on CUDA several of at most 16,384; None derives it
            from free memory.
        share_prefixes: compute common prefixes once; on a CPU template and instruction of small batches are
            cached for the next calls. (On a GPU small batches are bound by kernel launches, not by tokens.)
        elementwise: norms, rotary embedding and gate.
        cuda_graphs: launch the kernels of small batches as one CUDA graph.

    Raises:
        ConfigurationError: `cuda_graphs` without CUDA or a varlen kernel, or with weights on several devices.

    Attributes:
        concurrency: 1; a device runs one batch at a time.
        attention: name of the attention path, see `attention_path`.
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
        self._rows_for = padded_batch_row_count if packed else None
        self._decoder: Decoder | None = Decoder(model.decoder, elementwise)
        self._prefix_cache = PrefixCache(
            MAX_CACHED_TOKENS if share_prefixes and self.device.type == "cpu" else 0
        )
        found = find_varlen_kernel(self.device, self.dtype, Heads.of(model.decoder.config))
        self.attention = attention_path(self.device, found)
        self._kernel = found[1] if found is not None else None
        self._graphs = self._new_graphs(model.decoder) if cuda_graphs else None
        config = model.decoder.config
        self._budget = TokenBudget(
            (lambda: choose_token_budget(config, self.dtype, self.device))
            if token_budget is None
            else (lambda: token_budget)
        )
        exclusive.register(self.device.type)

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
        return exclusive.compute(self.device.type, partial(self._run, prompts))

    def close(self) -> None:
        """Drop the modules and return cached device memory."""
        if self._model is not None:
            exclusive.unregister(self.device.type, self._drop)

    def _drop(self) -> None:
        self._model = self._decoder = self._graphs = None
        self._prefix_cache.clear()
        release_memory(self.device)

    def _run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        computed = np.zeros(len(prompts), dtype=np.int64)
        outputs: list[Tensor] = []
        order: list[int] = []
        remaining = list(range(len(prompts)))
        while remaining:
            for batch in self._plan([prompts[i].token_ids for i in remaining]):
                indices = [remaining[i] for i in batch.sequences]
                result = self._try_batch(batch, [prompts[i] for i in indices])
                if result is None:
                    break  # the rest is planned again with the smaller budget
                values, computed[indices] = result
                outputs.append(values)
                order += indices
            finished = set(order)
            remaining = [i for i in remaining if i not in finished]
        return BackendOutput(join_outputs(outputs, order), computed)

    def _plan(self, sequences: list[TokenIds]) -> Iterator[PackedBatch]:
        fits_a_graph = self._graphs is not None and self._graphs.fits(sequences)
        return plan_batches(
            sequences,
            token_budget=self._batch_tokens,
            share_prefixes=self._share_prefixes and not fits_a_graph,
        )

    def _try_batch(
        self, batch: PackedBatch, prompts: Sequence[Prompt]
    ) -> tuple[Tensor, NDArray[np.int64]] | None:
        """Run a batch; None if memory ran out, in which case the token budget is halved.

        Args:
            batch: the batch.
            prompts: the prompt of each of its sequences.

        Returns:
            Values and computed tokens of each prompt, see `BackendOutput`.

        Raises:
            OutOfMemoryError: memory ran out for a single text.
        """
        prefix = self._prefix_cache.prefix_worth_caching(batch, min(p.shared_prefix_tokens for p in prompts))
        past = None if prefix is None else self._prefix_cache.get(prefix)
        values = attempt(partial(self._forward, batch, prefix, past), self.device)
        if values is None:
            # Identical sequences are computed once: no plan divides them.
            if np.count_nonzero(batch.computed) == 1:
                raise too_large_error(prompts[0], self.device)
            self._budget.ran_out(len(batch.token_ids))
            return None
        self._budget.succeeded()
        if self.device.type == "cpu" and not values.isfinite().all():
            values = torch.cat([self._alone(prompt.token_ids) for prompt in prompts])
        computed = batch.computed.copy()
        if past is not None:
            computed[0] -= len(past)  # counted for the first sequence, but not computed
        return values, computed

    @torch.inference_mode()
    def _forward(self, batch: PackedBatch, prefix: TokenIds | None, past: CachedPrefix | None) -> Tensor:
        values = self._graphs.run(batch) if self._graphs is not None else None
        if values is not None:
            return values
        if prefix is not None and past is None:
            past = self._compute_prefix(prefix)
        return self._values(self._device_batches(batch, 0 if past is None else len(past)), past)

    def _alone(self, token_ids: TokenIds) -> Tensor:
        """Compute a sequence in a batch of its own, which no other sequence's NaN can reach.

        On a CPU attention multiplies keys behind a sequence's own by a weight of 0, and 0 * NaN is NaN.
        """
        (batch,) = plan_batches([token_ids], token_budget=len(token_ids))
        return self._forward(batch, None, None)

    def _compute_prefix(self, token_ids: TokenIds) -> CachedPrefix:
        """Compute a prefix and cache its keys and values."""
        prefix = CachedPrefix(token_ids)
        (batch,) = plan_batches([token_ids], token_budget=len(token_ids))
        self._values(self._device_batches(batch), record_to=prefix)
        self._prefix_cache.put(prefix)
        return prefix

    def _device_batches(
        self, batch: PackedBatch, past_tokens: int = 0
    ) -> Callable[[torch.device], DeviceBatch]:
        """Return a function from a device to the batch there, which is moved once to each."""
        return cache(lambda device: to_device(batch, device, self._kernel, past_tokens, self._rows_for))

    def _values(
        self,
        batch_on: Callable[[torch.device], DeviceBatch],
        past: CachedPrefix | None = None,
        record_to: CachedPrefix | None = None,
    ) -> Tensor:
        assert self._model is not None, "run after close"
        assert self._decoder is not None
        ends = self._decoder.final_states(batch_on, past, record_to).float()
        direction = self._model.yes_minus_no
        values = ends if direction is None else ends @ direction.to(ends.device)
        return values.index_select(0, batch_on(values.device).sequence_ends)

    def _new_graphs(self, decoder: Any) -> Graphs:
        devices = {weight.device for weight in decoder.parameters()}
        if self._kernel is None or devices != {self.device}:
            raise ConfigurationError(
                "cuda_graphs=True needs all weights on one CUDA device of compute capability 8.0 or higher, in "
                f"bfloat16 or float16; got {self.dtype} on {', '.join(sorted(map(str, devices)))}. Otherwise "
                "leave it out of model_kwargs"
            )
        return Graphs(
            lambda batch: self._values(lambda _: batch), self.device, self._kernel, CudaRecorder(self.device)
        )
