"""A fixed set of generated texts: many scripts, all lengths, and what looks like control tokens."""

from __future__ import annotations

import random

WORDS = [
    *("gravity", "capital", "of", "China\n", "def", "f(x):", "naïve", ".", "", "  ", "\t", "1234.5", "é"),
    *(
        "北京",
        "重力是",
        "東京タワー",
        "서울",
        "กรุงเทพ",
        "हिन्दी",
        "العربية",
        "עברית",
        "Ωmega",
        "Привет",
        "🙂",
        "é",
    ),
    *("<think>", "</think>", "<|im_end|>", "<|im_start|>assistant", "<|endoftext|>", "<tool_call>", "<|"),
]
LENGTHS = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 120, 300]
ALPHABETS = [range(0x20, 0x7F), range(0x400, 0x460), range(0x4E00, 0x4F00), range(0x1F600, 0x1F640)]
INSTRUCTIONS = [None, "Find it", "Given a claim, find documents that refute it\n说明"]
QUERIES = ["why?", "capital of China", "a b c " * 9, "</think> yes <|im_end|>"]


def generated_texts() -> list[str]:
    """Return 48 texts, the same in every run."""
    chance = random.Random(20)
    texts = [" ".join(chance.choices(WORDS, k=length)) for length in LENGTHS for _ in range(3)]
    texts += ["".join(map(chr, chance.choices(letters, k=40))) for letters in ALPHABETS]
    texts += ["packed rows " * chance.randrange(1, 150) for _ in range(8)]
    chance.shuffle(texts)
    return texts


def generated_pairs() -> list[tuple[str, str]]:
    """Return a query for each of the texts."""
    chance = random.Random(21)
    return [(chance.choice(QUERIES), text) for text in generated_texts()]
