"""The training and held-out sets of the demo checkpoints, from public packages, split by source package."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training import extract, packages
from training.pairs import Pair, read_pairs, write_pairs

SEED: Final = 0
HELD_OUT_SHARE: Final = 0.2
"""Of source packages; chosen by a hash of the name, so that all texts of a package are on one side."""

QUERIES: Final = 1_000
PASSAGES: Final = 10_000
HELD_OUT_KINDS: Final = ("debian", "manual", "docstring")
"""The other kinds are for training only: dictionaries and the Python manual."""

_LEAST_SHARED: Final = 0.3

_MOST_PER_SOURCE: Final = 1_200
"""So that one large package does not fill a kind."""

_MOST: Final = {"debian": 40_000, "manual": 7_000, "docstring": 24_000, "wordnet": 40_000, "term": 40_000}


@dataclass(frozen=True)
class HeldOut:
    """Queries, the passages they are searched in, and which passage answers each.

    Attributes:
        queries: what is asked.
        passages: what is searched.
        answers: for each query, its passage's index.
    """

    queries: list[str]
    passages: list[str]
    answers: list[int]


def prepare(folder: Path) -> None:
    """Fetch, extract, clean and split, once.

    Writes `train.jsonl`, `train_libraries.jsonl` and `held_out.jsonl` into `folder`.
    What was extracted stays in `extracted.jsonl` and `libraries.jsonl`, so that another way to clean it is a
    matter of seconds. Libraries are for training alone: the held-out task does not depend on them.
    """
    if (folder / "held_out.jsonl").exists():
        return
    clean = list(_limited(_consistent(_unambiguous(_once(folder / "extracted.jsonl", _extracted)))))
    held_out = [pair for pair in clean if is_held_out(pair.source)]
    train = [pair for pair in clean if not is_held_out(pair.source)]
    found = _consistent(_unambiguous(_once(folder / "libraries.jsonl", _of_libraries)))
    libraries = list(_limited(_unlike(found, clean)))
    for name, pairs in (("train", train), ("train_libraries", libraries), ("held_out", held_out)):
        write_pairs(folder / f"{name}.jsonl", pairs)
        print(name, dict(Counter(pair.kind for pair in pairs)))


def _once(file: Path, extract_from: Callable[[Path], Iterator[Pair]]) -> list[Pair]:
    """Return a file's pairs, which are extracted from packages beside it if it is not there."""
    if not file.exists():
        part = file.with_suffix(".part")
        write_pairs(part, extract_from(file.parent / "apt"))
        part.rename(file)
    return read_pairs(file)


def is_held_out(source: str) -> bool:
    """Whether texts of this source package are kept from training."""
    digest = hashlib.sha256(source.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def load_held_out(folder: Path, *, queries: int = QUERIES, passages: int = PASSAGES) -> HeldOut:
    """Return the fixed held-out search task: the same for every run over the same archives.

    Args:
        folder: where `prepare` wrote.
        queries: how many of the passages' queries are asked.
        passages: how many passages are searched.
    """
    pairs = read_pairs(folder / "held_out.jsonl")
    random.Random(SEED).shuffle(pairs)
    # Other kinds only fill up the passages.
    pairs.sort(key=lambda pair: pair.kind not in HELD_OUT_KINDS)
    pairs = pairs[:passages]
    answerable = sum(pair.kind in HELD_OUT_KINDS for pair in pairs)
    asked = random.Random(SEED + 1).sample(range(answerable), min(queries, answerable))
    return HeldOut([pairs[i].query for i in asked], [pair.passage for pair in pairs], asked)


def _extracted(folder: Path) -> Iterator[Pair]:
    options = packages.fetch_package_lists(folder)
    lists = packages.read_package_lists(folder)
    source_of = extract.source_packages(lists["Packages"])
    yield from extract.debian_pairs(lists["Translation-en"], source_of)
    for name, root in packages.fetch_packages(folder, packages.MANUALS, options).items():
        yield from extract.manual_pairs(root, source_of.get(name, name))
    for name, root in packages.fetch_packages(folder, packages.PYTHON, options).items():
        yield from extract.docstring_pairs(root, source_of.get(name, name))
    for root in packages.fetch_packages(folder, packages.PYTHON_DOCUMENTATION, options).values():
        yield from extract.python_documentation_pairs(root)
    for name, root in packages.fetch_packages(folder, packages.DICTIONARIES, options).items():
        if name == "wordnet-base":
            yield from extract.wordnet_pairs(root)
        else:
            yield from extract.dictionary_pairs(root, name.removeprefix("dict-"))


def _of_libraries(folder: Path) -> Iterator[Pair]:
    options = packages.fetch_package_lists(folder)
    lists = packages.read_package_lists(folder)["Packages"]
    source_of = extract.source_packages(lists)
    names = [name for name in packages.libraries(lists) if not is_held_out(source_of[name])]
    for name, root in packages.fetch_packages(folder, names, options).items():
        yield from extract.docstring_pairs(root, source_of[name])
        yield from extract.manual_pairs(root, source_of[name])


def _unlike(pairs: Iterable[Pair], others: Sequence[Pair]) -> Iterator[Pair]:
    """Drop pairs whose query or passage is another's, digits and the passage's name apart."""
    known = {key for pair in others for key in _content(pair)}
    return (pair for pair in pairs if known.isdisjoint(_content(pair)))


def _content(pair: Pair) -> tuple[str, str]:
    texts = (pair.query, pair.passage.partition(": ")[2] or pair.passage)
    query, passage = (re.sub(r"[\W\d_]+", " ", text.lower()).strip()[:150] for text in texts)
    return f"query {query}", f"passage {passage}"


def _unambiguous(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Drop repeated passages, then all pairs whose query several passages would answer."""
    seen: set[str] = set()
    distinct = []
    for pair in pairs:
        # The text after the name: wrappers of one function differ in nothing else.
        key = _key(pair.passage.partition(": ")[2] or pair.passage)[:150] + pair.kind
        if key not in seen and len(pair.passage) >= 20:
            seen.add(key)
            distinct.append(pair)
    asked = Counter(_key(pair.query) for pair in distinct if pair.kind in HELD_OUT_KINDS)
    # A word has several senses, which is right for training; these kinds are not in the held-out task.
    return (pair for pair in distinct if asked[_key(pair.query)] <= 1)


def _consistent(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Drop pairs whose passage holds too little of what the query asks: most of them answer nothing.

    Words count by rarity and are compared by their beginnings; `_LEAST_SHARED` of the query's weight
    must occur in the passage.
    """
    texts = [(pair, _stems(pair.query), _stems(pair.passage)) for pair in pairs]
    holding = Counter(stem for _, _, passage in texts for stem in passage)
    for pair, query, passage in texts:
        weight = {stem: math.log(len(texts) / (1 + holding[stem])) for stem in query}
        shared = sum(value for stem, value in weight.items() if stem in passage)
        if pair.kind not in HELD_OUT_KINDS or shared >= _LEAST_SHARED * sum(weight.values()) > 0:
            yield pair


def _stems(text: str) -> set[str]:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", text)
    return {word.lower()[:6] for word in words if len(word) > 1}


def _limited(pairs: Iterable[Pair]) -> Iterator[Pair]:
    by_kind: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_kind[pair.kind].append(pair)
    shuffler = random.Random(SEED)
    for kind, members in sorted(by_kind.items()):
        shuffler.shuffle(members)
        of_source: Counter[str] = Counter()
        kept = []
        for pair in members:
            of_source[pair.source] += 1
            if of_source[pair.source] <= _MOST_PER_SOURCE:
                kept.append(pair)
        yield from kept[: _MOST.get(kind, len(kept))]


def _key(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()
