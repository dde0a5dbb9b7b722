"""What most tests here compute: sixty texts, and what must come of them."""

from __future__ import annotations

import models
import numpy as np
from qwen3_rag import Embedder

TEXTS = [f"t{i} " * (1 + i % 3) for i in range(60)]
"""Few tokens, so that the engine makes them one round."""

DEADLINE = 20.0
"""Seconds; longer than any test here needs unless it hangs."""

RIGHT = models.vllm(models.digest())


def check(embedder: Embedder, expected: np.ndarray) -> None:
    """Compare what an embedder makes of the texts with the fixture `expected`."""
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected, rtol=0, atol=1e-6)
