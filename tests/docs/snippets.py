"""The code blocks of the documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MODELS: Final = ROOT / "core" / "qwen3_rag" / "demo" / "models"
CHINESE: Final = "README.zh-CN.md"
"""Has the blocks of README.md, which a test asserts, so running those is enough."""

_STAND_INS: Final = {"Qwen/Qwen3-Embedding-0.6B": "demo-embedding", "Qwen/Qwen3-Reranker-0.6B": "demo-reranker"}
_COMMIT: Final = "0" * 40

_FENCE: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
_EXCEPTION: Final = re.compile(r"<!-- not run: (.+?) -->\n+\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        document: path of the Markdown file from the root of the repository.
        line: number of the block's first line of code.
        language: what stands behind the opening fence, "" for nothing.
        code: the lines between the fences.
        exception: why it is not run, from `<!-- not run: REASON -->` above it; None for those that are.
    """

    document: str
    line: int
    language: str
    code: str
    exception: str | None

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """Return the Markdown files that users read, as paths from the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks_of(document: str) -> list[Block]:
    """Return a document's blocks, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        above = _EXCEPTION.search(text, 0, match.start())
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(document, line, match[1], match[2], above and above[1]))
    return found


def python_blocks(document: str) -> list[Block]:
    """Return a document's blocks of Python, those that are not run included."""
    return [block for block in blocks_of(document) if block.language == "python"]


def fill_hub_cache(cache: Path) -> Path:
    """Make a cache of the Hugging Face hub in which the demo pair has the published 0.6B models' names."""
    for repository, model in _STAND_INS.items():
        folder = cache / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(_COMMIT)
        (folder / "snapshots").mkdir()
        (folder / "snapshots" / _COMMIT).symlink_to(MODELS / model)
    return cache


def hub_environment(cache: Path) -> dict[str, str]:
    """Return the variables that have a process read that cache and nothing else."""
    return {"HF_HOME": str(cache), "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
