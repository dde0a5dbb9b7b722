"""The first cosines of a process, which several threads of a CPU must not be the first to compute."""

from __future__ import annotations

from typing import Final

import torch

_FEW: Final = 8
"""Numbers that PyTorch does not divide among threads."""


def settle_cosines() -> None:
    """Compute a few cosines and sines in this thread alone, so that later ones are right in all threads.

    On x86 they are MKL's. Where two threads are the first to ask for them, one can get its least accurate kind:
    cosines of half a batch's positions were off by 1.5e-4, and scores by 2e-4, in the first call of 5 of about
    160 processes (PyTorch 2.13, two threads). In a program of a few lines, a product of matrices and then
    cosines, that were 11 of 2,189, and with this before the product none of 1,617.
    """
    for function in (torch.cos, torch.sin):
        function(torch.ones(_FEW))
