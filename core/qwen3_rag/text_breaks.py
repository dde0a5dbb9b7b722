"""Where a long text can be broken off with the tokens before as they are in the whole.

A document of which only the beginning is kept need not be tokenised whole: for a string of 20 MB that took half
a minute and 5 GB. Qwen's tokenizer splits text by one expression, from left to right, and merges within the
pieces. A run of letters ends at the first character that is no letter, whatever follows, and so does its
piece. Each digit is a piece of its own.
"""

from __future__ import annotations

import json
import re
from typing import Final
from unicodedata import ucd_3_2_0

from tokenizers import Tokenizer

_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Source: pre_tokenizer in tokenizer.json of the published models."""

_BREAKS: Final = re.compile(r"[^\W\d_](?=[\n\t -/:-@\[-`{-~。，、；：！？])|[0-9](?=[\n\t -~])")
"""A letter followed by a character that is no letter, or a digit followed by anything of ASCII; neither
composes with what follows under NFC."""

_SEARCHED: Final = 10_000
"""Characters that are searched for such a break."""


def splits_as_qwen(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer makes its pieces as Qwen's does, which `safe_break` relies on."""
    if tokenizer.pre_tokenizer is None or tokenizer.normalizer is None:
        return False
    steps = json.loads(tokenizer.pre_tokenizer.__getstate__()).get("pretokenizers", [])
    return (
        json.loads(tokenizer.normalizer.__getstate__()) == {"type": "NFC"}
        and [step["type"] for step in steps] == ["Split", "ByteLevel"]
        and steps[0]["pattern"] == {"Regex": _SPLIT}
        and (steps[0]["behavior"], steps[0]["invert"]) == ("Isolated", False)
        and not (steps[1]["use_regex"] or steps[1]["add_prefix_space"])
    )


def safe_break(text: str, least: int) -> int:
    """Return how many characters of a text, at least `least`, have the tokens that they have in the whole.

    All of them, if no place to break it off is near.
    """
    for found in _BREAKS.finditer(text, least, least + _SEARCHED):
        # A letter already in Unicode 3.2: younger ones may be unknown to the tokenizer's expression.
        if ucd_3_2_0.category(found.group())[0] in "LN":
            return found.end()
    return len(text)
