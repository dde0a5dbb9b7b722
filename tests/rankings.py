"""Questions whose right passage is known, for the demo pair: its order means something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

PASSAGES = {
    "gzip": "gzip compresses files. A compressed file is restored by gunzip; the usual suffix is .gz.",
    "mail": "An SMTP client sends an email message to any machine that listens as a mail server.",
    "random": "Pseudo-random numbers: pick an element of a list by chance, shuffle it, draw a sample.",
    "thread": "Threads run several functions at the same time; a lock lets only one thread pass.",
    "calendar": "Dates and times: parse a date, add days to it, and format it for a time zone.",
    "china": "The capital of China is Beijing.",
    "gravity": "Gravity is a force that attracts two bodies towards each other. It gives weight to objects.",
    "diff": "Compare two sequences of lines and show the differences between both as a patch.",
}

QUESTIONS = {
    "how do I compress a file": "gzip",
    "send an email through a server": "mail",
    "run a function in another thread": "thread",
    "What is the capital of China?": "china",
    "Explain gravity": "gravity",
    "show the differences between two files": "diff",
}
"""Question -> the passage that answers it."""

EMBEDDER = {"model": "demo", "device": "cpu"}
RERANKER = {"model": "demo", "device": "cpu"}
"""Options of core classes and adapters alike."""


def check_nearest(vectors: Callable[..., Any], options: dict[str, Any]) -> None:
    """Assert that the nearest passage is the right one; `vectors` is one of `frameworks`."""
    names, texts = list(PASSAGES), list(PASSAGES.values())
    for question, right in QUESTIONS.items():
        query, documents = vectors(options, question, texts)
        assert names[int(np.argmax(documents @ query))] == right, question


def check_best(ranking: Callable[..., Any], options: dict[str, Any]) -> None:
    """Assert that the first passage after reranking is the right one; `ranking` is one of `frameworks`."""
    for question, right in QUESTIONS.items():
        best, _ = ranking(options, question, list(PASSAGES.values())[::-1])[0]
        assert best == PASSAGES[right], question
