"""The first cosines of a process must not be computed by several threads of a CPU at the same time."""

from __future__ import annotations

from typing import Final

import torch

_ELEMENTS: Final = 8
"""So few that PyTorch computes them in the calling thread alone."""


def warm_up_trigonometry() -> None:
    """Compute a few cosines and sines in this thread alone, so that later ones are right in all threads.

    On x86 these are MKL's. If two threads make the first calls at the same time, one of them can get MKL's
    low-accuracy variant: cosines of half a batch's positions were off by 1.5e-4, and scores by 2e-4, in the
    first call of 5 of about 160 processes (PyTorch 2.13, two threads). A minimal script (a matmul, then
    cosines) showed it in 11 of 2,189 runs, and in none of 1,617 with this warm-up.
    """
    for function in (torch.cos, torch.sin):
        function(torch.ones(_ELEMENTS))
