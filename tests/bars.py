"""Progress bars that note what they are told, in the place of tqdm's."""

from __future__ import annotations

import pytest
from qwen3_rag import chunks, progress


class Bar:
    """A bar that is shown.

    Attributes:
        total, desc: as given.
        moves: each step, in texts.
    """

    def __init__(self, total: int, desc: str | None) -> None:
        self.total, self.desc = total, desc
        self.moves: list[int] = []

    @property
    def n(self) -> int:
        return sum(self.moves)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, texts: int) -> None:
        self.moves.append(texts)


def note_bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """Return a list to which each bar is added that is shown. Calls are done with two texts at a time."""
    shown: list[Bar] = []

    def make(total: int, desc: str | None, disable: bool, unit: str) -> Bar:
        assert unit == "text"
        bar = Bar(total, desc)
        if not disable:
            shown.append(bar)
        return bar

    monkeypatch.setattr(progress, "tqdm", make)
    monkeypatch.setattr(chunks, "_CHUNK", 2)
    return shown
