"""The recipe is no part of the package: it is imported from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("peft")
sys.path.append(str(Path(__file__).resolve().parents[2]))
