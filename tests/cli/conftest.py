"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Invoke, run_command


@pytest.fixture(scope="session")
def embedding_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose tokenizer is read in no time; no id of it is looked at here."""
    from checkpoints import Qwen3Model, make_checkpoint, small_tokenizer

    folder = tmp_path_factory.mktemp("small-vocabulary-embedding")
    return make_checkpoint(folder, small_tokenizer(appends_end_of_text=True), architecture=Qwen3Model)


@pytest.fixture(scope="session")
def reranking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `embedding_checkpoint`."""
    from checkpoints import make_checkpoint, small_tokenizer

    folder = tmp_path_factory.mktemp("small-vocabulary-reranker")
    return make_checkpoint(folder, small_tokenizer(appends_end_of_text=False), seed=1)


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process and return its exit code and outputs."""
    return run_command


TEXTS = [
    "  two blanks before",
    "tab\tand two blanks after  ",
    "",
    "line\u2028separator",
    "数据库",
    "form\x0cfeed",
    "no newline at the end",
]
"""Texts that would show any change made to them."""


@pytest.fixture
def texts() -> list[str]:
    return TEXTS


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The texts, one per line."""
    path = tmp_path / "lines.txt"
    path.write_bytes("\n".join(TEXTS).encode())
    return path
