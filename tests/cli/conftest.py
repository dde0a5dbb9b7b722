"""Fixtures of the command line's tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import Invoke, run_command
from qwen3_rag import Embedder


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


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    """The texts as one field of three."""
    path = tmp_path / "rows.jsonl"
    rows = [{"id": number, "body": text, "tags": ["a", "b"]} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """The texts as one column of three."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    table = pa.table(
        {"id": list(range(len(TEXTS))), "body": TEXTS, "when": pa.array([0] * len(TEXTS), pa.date32())}
    )
    pq.write_table(table, path, row_group_size=2)
    return path


@pytest.fixture(scope="session")
def embedder(embedding_checkpoint: Path) -> Embedder:
    return Embedder(str(embedding_checkpoint), dtype="float32", dimensions=32)


@pytest.fixture
def expected(embedder: Embedder) -> np.ndarray:
    """The texts' vectors."""
    return embedder.embed_documents(TEXTS)
