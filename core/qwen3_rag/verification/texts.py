"""The fixed texts, in several scripts and lengths, each chosen to show some fault.

Capitals show lower-casing, newlines their replacement by spaces, one at a text's end that it is stripped, long
texts a limit on length. No text looks like a special token: servers that take text would read it as one, which
is a question of safety, not of right numbers.
"""

from __future__ import annotations

from typing import Final

QUERIES: Final = (
    "What is the capital of China?",
    "重力是什么？",
    "¿Dónde está la biblioteca?",
    "fix ValueError:\nlist.remove(x)",
)
SHORT_DOCUMENTS: Final = (
    "The capital of China is Beijing.",
    "重力使物体相互吸引，行星因此绕太阳运行。",
    "La biblioteca está al lado de la estación.",
    "def add(a, b):\n    return a + b\n",
    "Пекин — столица Китая.",
    "عاصمة الصين هي بكين",
    "Gravity bends light 🌌",
)
_SENTENCES: Final = (
    "Beijing has been the capital of China for most of the last eight centuries.",
    "The city lies in the north of the country, on the edge of a wide plain.",
    "Its oldest streets run between grey walls, and its newest are lined with towers of glass.",
    "More than twenty million people live there, and most of them travel by underground.",
)
LONG_DOCUMENTS: Final = (" ".join(_SENTENCES * 5), " ".join(_SENTENCES * 20))
"""About 350 and 1,400 tokens: above the limits of 256, 512 and 1,024 that servers are often left with."""

PAIRS: Final = tuple(
    (QUERIES[query], SHORT_DOCUMENTS[document])
    for query, document in (
        *((0, 0), (0, 4), (0, 5), (0, 1)),
        *((1, 1), (1, 6), (1, 2)),
        *((2, 2), (2, 3), (2, 0)),
        *((3, 3), (3, 6)),
    )
)
LONG_PAIRS: Final = tuple((QUERIES[0], document) for document in LONG_DOCUMENTS)
