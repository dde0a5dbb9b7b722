"""Causal masks for consecutive queries of a segment, all of them windows of one tensor."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_WIDENED_BY: Final = 1024
"""Columns that the band grows by at least, so that a batch allocates few. Chosen, not tuned."""


class CausalMasks:
    """Masks of consecutive queries that see all keys before the first of them, then the keys up to their own.

    All masks are windows of one lower-triangular band: more preceding keys mean more all-True columns on its
    left.

    Args:
        device: of the masks.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._band: Tensor | None = None  # made on demand: a varlen kernel needs none

    def of(self, rows: int, before: int, behind: int = 0) -> Tensor:
        """Return a mask.

        Args:
            rows: how many queries.
            before: how many keys precede the first query's own.
            behind: how many keys follow the last query's own.

        Returns:
            bool, shape (rows, before + rows + behind); True where a query sees a key. A view: do not write to
            it.
        """
        height, width = (0, 0) if self._band is None else self._band.shape
        left = width - height
        if self._band is None or rows + behind > height or before > left:
            height, left = max(rows + behind, height), max(-(-before // _WIDENED_BY) * _WIDENED_BY, left)
            band = torch.ones(height, left + height, dtype=torch.bool, device=self._device)
            self._band = band.tril_(left)
        return self._band[:rows, left - before : left + rows + behind]
