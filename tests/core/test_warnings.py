"""Warnings name the line of the caller that they are about."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import Embedder, TruncationWarning

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}

CUTTING = """
import asyncio
from qwen3_rag import Embedder, Reranker
embedder, texts = Embedder("demo", max_tokens=10, device="cpu"), ["word " * 50, "a", "word " * 20]
for _ in range(2):
    assert embedder.embed(texts, role="document").usage.truncated_texts == 2
embedder.embed_documents(texts)
async def call():
    await embedder.aembed_documents(texts)
asyncio.run(call())
Reranker("demo", max_tokens=120, device="cpu").rerank("q", texts)
"""


def test_each_call_that_cut_documents_says_so_at_its_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CUTTING)
    command = [sys.executable, str(script)]
    said = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stderr
    found = re.findall(
        r"(\S+):(\d+): TruncationWarning: (\d of 3) documents were cut to fit max_tokens=(\d+)", said
    )
    assert [(int(line), *rest) for _, line, *rest in found] == [
        (6, "2 of 3", "10"),
        (6, "2 of 3", "10"),
        (7, "2 of 3", "10"),
        (9, "2 of 3", "10"),
        (11, "1 of 3", "120"),
    ]
    assert {file for file, *_ in found} == {str(script)}


def test_the_warning_can_be_made_an_error(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), max_tokens=10, **OPTIONS)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=TruncationWarning)
        with pytest.raises(TruncationWarning, match="1 of 1 documents were cut to fit max_tokens=10; raise it"):
            embedder.embed_documents(["word " * 50])
    assert (embedder.usage.texts, embedder.usage.truncated_texts) == (1, 1)


FEW = """
import asyncio
from qwen3_rag import Embedder, quantize
embedder = Embedder("demo", device="cpu", timeout=60)
vectors = embedder.embed_documents(["a", "b"])
quantize(vectors, "int8")
embedder.embed_documents(["a", "b"], precision="int8")
async def call():
    await embedder.aembed_queries(["a"], precision="uint8")
asyncio.run(call())
embedder.embed_documents([], precision="int8")
embedder.embed_documents(["a"], precision="int8", ranges=[vectors.min(0), vectors.max(0)])
"""


@pytest.mark.parametrize("inline", [200_000, 0], ids=["few numbers", "many numbers"])
def test_few_vectors_for_ranges_are_warned_of_at_the_line_that_called(tmp_path: Path, inline: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import qwen3_rag.component as c; c._INLINE_NUMBERS = {inline}" + FEW)
    command = [sys.executable, "-W", "always", str(script)]
    said = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stderr
    found = re.findall(r"(\S+):(\d+): UserWarning: int8/uint8 ranges measured on only (\d)", said)
    assert [(file, int(line), count) for file, line, count in found] == [
        (str(script), 6, "2"),
        (str(script), 7, "2"),
        (str(script), 9, "1"),
    ]
