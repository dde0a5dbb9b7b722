"""What the contracts of adapters have in common, whatever their framework."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from qwen3_rag.testing.event_loop import EventLoopContract
from qwen3_rag.testing.weights import holds_tensor

CONCURRENT_CALLS: Final = 50
"""Calls at once in the tests of event loops: more than asyncio's default pool has threads (at most 32)."""


class AdapterContract(EventLoopContract):
    """Numbers do not depend on the batch, copies hold no weights, and the event loop turns meanwhile.

    Attributes:
        tolerance: most by which a number may differ when it is computed again, or in another batch.
        most_pickled_bytes: a configuration is far smaller, weights are far larger.
    """

    tolerance: float = 1e-4
    most_pickled_bytes: int = 50_000

    def check_copies(self, adapter: Any, use: Callable[[Any], Sequence[float] | Mapping[str, Any]]) -> None:
        """Fail unless pickles and deep copies of a used adapter hold no weights and give what it gives.

        Args:
            adapter: what is copied.
            use: calls an adapter, and returns the numbers that it gives.
        """
        expected = pytest.approx(use(adapter), abs=self.tolerance)
        pickled = pickle.dumps(adapter)
        assert len(pickled) < self.most_pickled_bytes, f"{len(pickled)} bytes: more than a configuration"
        for twin in (pickle.loads(pickled), copy.deepcopy(adapter)):
            assert not holds_tensor(twin), "weights came along"
            assert use(twin) == expected
