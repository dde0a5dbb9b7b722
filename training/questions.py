"""Ten questions about Python's standard library, fixed before training, and the modules that answer them.

They are asked in plain words and are no part of the training data.
"""

from __future__ import annotations

from typing import Final

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
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

EXAMPLE_QUERIES: Final = ("What is the capital of China?", "Explain gravity")
EXAMPLE_DOCUMENTS: Final = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects "
    "and is responsible for the movement of planets around the sun.",
)
"""The published model cards' example: each query belongs to the document of its place."""
