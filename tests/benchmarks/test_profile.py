"""Where our time goes is measured in the thread that computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from qwen3_rag import Embedder

from benchmarks.workloads.profile import _profile


def test_shares_of_the_time_add_up_and_know_the_matrix_products() -> None:
    bench: Any = SimpleNamespace(
        setup=SimpleNamespace(device=torch.device("cpu")), sizes=SimpleNamespace(rounds=1)
    )
    with Embedder("demo", device="cpu") as embedder:
        shares = _profile(bench, embedder, ["a text", "another text"])
    assert shares.pop("seconds") > 0
    assert shares["matrix products"] > 0
    assert sum(shares.values()) == pytest.approx(1)
