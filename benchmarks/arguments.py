"""What both commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def chosen_of(names: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of names with commas between, all of which must be among these."""

    def parse(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(names)}")
        return chosen

    return parse
