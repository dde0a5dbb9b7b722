"""Masks for consecutive queries of a segment, all of them windows of one tensor."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_WIDENED_BY: Final = 1024
"""Columns that are added at once, so that a batch makes few bands."""


class CausalMasks:
    """Masks of consecutive queries that see all keys before the first of them, and theirs up to their own.

    After more keys there are more columns on the left, which all queries see: so each mask is the right end of
    one band, cut to as many columns as there are keys.

    Args:
        device: of the masks.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._band: Tensor | None = None  # a batch with a kernel needs none

    def of(self, rows: int, before: int, behind: int = 0) -> Tensor:
        """Return a mask, True where a query sees a key; bool, shape (rows, before + rows + behind).

        Args:
            rows: the queries.
            before: keys before the first query's own.
            behind: keys after the last query's own.
        """
        height, width = (0, 0) if self._band is None else self._band.shape
        left = width - height
        if self._band is None or rows + behind > height or before > left:
            height, left = max(rows + behind, height), max(-(-before // _WIDENED_BY) * _WIDENED_BY, left)
            band = torch.ones(height, left + height, dtype=torch.bool, device=self._device)
            self._band = band.tril_(left)
        return self._band[:rows, left - before : left + rows + behind]
