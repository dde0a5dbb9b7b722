"""Ten questions about Python's standard library, fixed before the demo pair was trained, and what answers them.

They are asked in plain words and are no part of the training data. `qwen3-rag demo` asks the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    "how do I parse command line options": ("argparse", "optparse", "getopt"),
    "read a file line by line": ("fileinput", "linecache", "io"),
    "run a function in another thread": ("threading", "concurrent", "asyncio", "queue"),
    "compress data with gzip": ("gzip", "zlib"),
    "send an email message through a server": ("smtplib", "email"),
    "pick a random element from a list": ("random", "secrets"),
    "parse dates and times": ("datetime", "calendar", "email", "time", "_strptime"),
    "compare two sequences and show the differences": ("difflib", "filecmp"),
    "store objects on disk like a dictionary": ("shelve", "dbm", "pickle"),
    "download a web page": ("urllib", "http", "webbrowser"),
}
"""Question -> top-level modules; one of them should be among the first three results."""


def answers(question: str, passages: Iterable[str]) -> bool:
    """Whether one of some passages (of `standard_library_passages`) is about a module that is expected."""
    return any(re.split(r"[.:]", passage, maxsplit=1)[0] in EXPECTED[question] for passage in passages)
