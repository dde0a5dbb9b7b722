"""Memory that all layers of a forward pass write to in turn.

An allocator gives large blocks back to the system as soon as nobody uses them, and then the system hands out
zeroed pages anew: on a CPU that was 10 to 15 % of the time of a batch.
"""

from __future__ import annotations

from math import prod

from torch import Tensor


class Workspace:
    """Tensors by name, of one device and dtype. What was written under a name before is lost."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor.

        Args:
            name: of what it is for.
            like: has its dtype and device.
        """
        size = prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < size:
            kept = self._kept[name] = like.new_empty(size)
        return kept[:size].view(shape)
