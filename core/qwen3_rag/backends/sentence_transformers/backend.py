"""Feeds padded batches of token ids to the modules of Sentence Transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device import exclusive
from qwen3_rag.backends.device.choice import choose_device, choose_dtype
from qwen3_rag.backends.device.memory import choose_token_budget
from qwen3_rag.backends.device.out_of_memory import attempt, release_memory, too_large_error
from qwen3_rag.backends.device.outputs import join_outputs
from qwen3_rag.backends.device.trigonometry import warm_up_trigonometry
from qwen3_rag.backends.sentence_transformers.inputs import check_inputs
from qwen3_rag.backends.sentence_transformers.loading import LoadedModel, load_model
from qwen3_rag.backends.sentence_transformers.options import Options
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompt


def create(settings: EngineSettings) -> SentenceTransformersBackend:
    """Load a model as the settings say. Entry point `sentence-transformers` of `qwen3_rag.backends`.

    `share_prefixes` has no effect: the library computes every text in full.

    Raises:
        CheckpointError: see `load_model` and `check_inputs`.
        ConfigurationError: see `Options.parse`, or the device is not available.
    """
    options = Options.parse(settings.loader_options)
    device = choose_device(settings.one_device)
    dtype = choose_dtype(settings.dtype, device)
    checkpoint = open_checkpoint(settings, weights=True)
    warm_up_trigonometry()

    def load() -> SentenceTransformersBackend:
        loaded = load_model(checkpoint, settings.kind, device=device, dtype=dtype, options=options)
        tokenizer = PromptTokenizer.from_folder(checkpoint.folder)
        if not options.accept_other_inputs:
            check_inputs(loaded, checkpoint, settings.kind, tokenizer)
        return SentenceTransformersBackend(
            loaded, end_of_text=tokenizer.end_of_text, token_budget=settings.token_budget
        )

    return exclusive.load(device.type, load)


class SentenceTransformersBackend:
    """A `SentenceTransformer` or `CrossEncoder` behind the contract of `Backend`.

    Args:
        loaded: the model and how to feed it.
        end_of_text: token id to pad with if the checkpoint defines no padding token; it is masked.
        token_budget: most tokens of one batch, padding included; None derives it from free memory.

    Attributes:
        concurrency: 1; a device runs one batch at a time.
    """

    concurrency = 1

    def __init__(self, loaded: LoadedModel, *, end_of_text: int, token_budget: int | None) -> None:
        self._loaded: LoadedModel | None = loaded
        network = loaded.transformer.auto_model
        self.device = torch.device(loaded.model.device)
        if network.config.pad_token_id is None:
            # Sequence classification needs it in batches, to find the last token that is not padding.
            network.config.pad_token_id = end_of_text
        self._padding = int(network.config.pad_token_id)
        self.token_budget = (
            choose_token_budget(network.config, network.dtype, self.device)
            if token_budget is None
            else token_budget
        )
        exclusive.register(self.device.type)

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts; see `Backend.run`. Batches that do not fit are halved."""
        return exclusive.compute(self.device.type, partial(self._run, prompts))

    def close(self) -> None:
        """Drop the modules and return cached device memory."""
        if self._loaded is not None:
            exclusive.unregister(self.device.type, self._drop)

    def _drop(self) -> None:
        self._loaded = None
        release_memory(self.device)

    def _run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        lengths = np.array([len(prompt.token_ids) for prompt in prompts], dtype=np.int64)
        waiting = list(_batches(lengths, self.token_budget))[::-1]
        outputs: list[Tensor] = []
        order: list[int] = []
        while waiting:
            batch = waiting.pop()
            chosen = [prompts[i] for i in batch]
            result = attempt(partial(self._forward, chosen), self.device)
            if result is not None:
                outputs.append(result)
                order += batch
            elif len(batch) > 1:
                middle = len(batch) // 2
                waiting += [batch[middle:], batch[:middle]]
            else:
                raise too_large_error(chosen[0], self.device)
        return BackendOutput(join_outputs(outputs, order), lengths)

    @torch.inference_mode()
    def _forward(self, prompts: list[Prompt]) -> Tensor:
        assert self._loaded is not None, "run after close"
        features = self._features(self._loaded, prompts)
        values: Tensor = self._loaded.model(features)[self._loaded.output].float()
        return values if self._loaded.output == "sentence_embedding" else values.reshape(len(prompts))

    def _features(self, loaded: LoadedModel, prompts: list[Prompt]) -> dict[str, object]:
        """Return what the library's `preprocess` would, from our token ids."""
        width = max(len(prompt.token_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self._padding)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            start = width - len(prompt.token_ids) if loaded.pads_left else 0
            stop = start + len(prompt.token_ids)
            input_ids[row, start:stop] = torch.from_numpy(prompt.token_ids)
            mask[row, start:stop] = 1
        features: dict[str, object] = {
            "input_ids": input_ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "modality": "text",
        }
        if loaded.keeps_logits is not None:
            features["logits_to_keep"] = loaded.keeps_logits
        return features


def _batches(lengths: np.ndarray, token_budget: int) -> Iterator[list[int]]:
    """Yield batches of indices, longest texts first, so that texts times the longest stay within the budget."""
    batch: list[int] = []
    width = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * width > token_budget:
            yield batch
            batch = []
        if not batch:
            width = int(lengths[index])
        batch.append(index)
    if batch:
        yield batch
