"""The recipe is no part of the package: it is imported from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

pytest.importorskip("sentence_transformers")
pytest.importorskip("peft")
sys.path.append(str(Path(__file__).resolve().parents[2]))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The demo pair's construction, learnt from a few texts."""
    from training.pairs import Pair
    from training.tokenizer import train

    return train(
        [
            Pair(f"how to use tool {i}", f"tool-{i}: It works with files number {i} and archives.")
            for i in range(200)
        ]
    )
