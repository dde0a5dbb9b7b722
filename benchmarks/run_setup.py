"""What all ways of a run share: where the checkpoints are, the device and the element type."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from qwen3_rag.models import ModelKind, PublishedModel

from benchmarks.checkpoints import make_checkpoint, shape

_SWEEP: Final = (1, 4, 8, 16)
_SWEEP_ON_GPU: Final = (8, 64, 128, 256)
"""Batch sizes tried beside a peer's default."""


@dataclass(frozen=True)
class Setup:
    """Made once for a run.

    Attributes:
        size: published size whose widths the checkpoints have.
        layers: of the checkpoints; None for as many as the published ones.
        device, dtype: what every way is told to use.
        work: folder for checkpoints and exchanged files, removed at the end.
        vllm_python: interpreter of an environment that has vLLM; None to leave vLLM out.
        made: folders of the checkpoints that there are, by name.
    """

    size: str
    layers: int | None
    device: torch.device
    dtype: torch.dtype
    work: Path
    vllm_python: Path | None = None
    made: dict[str, Path] = field(default_factory=dict, repr=False)

    def model(self, kind: ModelKind, layers: int | None = None) -> PublishedModel:
        """The shape of a checkpoint; `layers` overrides the run's."""
        return shape(self.size, kind, self.layers if layers is None else layers)

    def checkpoint(self, kind: ModelKind, layers: int | None = None) -> Path:
        """The folder of a checkpoint, made on first use."""
        model = self.model(kind, layers)
        name = checkpoint_name(model)
        if name not in self.made:
            self.made[name] = make_checkpoint(self.work / name, model, self.dtype, self.device)
            torch.cuda.empty_cache()  # made there: other processes need the room
        return self.made[name]

    @property
    def swept_batches(self) -> tuple[int, ...]:
        """Batch sizes that the sweep tries, ascending."""
        return _SWEEP if self.device.type == "cpu" else _SWEEP_ON_GPU

    @property
    def dtype_name(self) -> Any:
        """As `dtype=` of our constructors takes it."""
        return str(self.dtype).removeprefix("torch.")


def checkpoint_name(model: PublishedModel) -> str:
    """A name under which a checkpoint of this shape is kept."""
    return f"{model.kind}-{model.layers}-layers"
