"""Many documents at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer

from benchmarks import texts
from benchmarks.flops import embedding_work
from benchmarks.ways import OURS, Peer
from benchmarks.workloads import Bench, PeerBench, Result

_LENGTHS: Final = (32, 128, 512, 2048)
_TOKENS: Final = 2048
"""Of all texts of a length together."""
_ROUNDS_OF_A_LENGTH: Final = 3


def mixed(bench: PeerBench) -> Result:
    """Documents of realistic lengths; every peer at its default and at its best batch size."""
    return _compare(bench, bench.peers, texts.mixed(bench.sizes.texts))


def uniform(bench: PeerBench) -> Result:
    """Documents of 512 tokens, which need no padding; without the peers that wrap others."""
    peers = [peer for peer in bench.peers if peer.wraps is None]
    return _compare(bench, peers, texts.uniform(bench.sizes.uniform, 512))


def lengths(bench: PeerBench) -> Result:
    """What a text costs by its length: 2,048 tokens in texts of 32, 128, 512 and 2,048 tokens."""
    peers = [peer for peer in bench.only(OURS, "Sentence", "OpenVINO", "vLLM") if not peer.int8]
    points, shares = [], []
    for length in _LENGTHS:
        given = texts.uniform(_TOKENS // length, length)
        found = bench.comparison.run(peers, given, defaults=False, rounds=_ROUNDS_OF_A_LENGTH)
        points.append({"tokens": length, "texts": len(given), **found})
        shares.append(
            (found["ways"], embedding_work(bench.setup.model("embedding"), token_counts(bench, given)))
        )
    return Result({"points": points}, shares)


def _compare(bench: PeerBench, peers: Sequence[Peer], given: Sequence[str]) -> Result:
    found = bench.comparison.run(peers, given, sweep=True)
    counts = token_counts(bench, given)
    data = {"lengths": texts.lengths_summary(counts), **found}
    return Result(data, [(found["ways"], embedding_work(bench.setup.model("embedding"), counts))])


def token_counts(bench: Bench, given: Sequence[str]) -> list[int]:
    """Tokens of each text, `<|endoftext|>` included."""
    tokenizer = Tokenizer.from_file(str(bench.setup.checkpoint("embedding") / "tokenizer.json"))
    return [len(tokenizer.encode(text).ids) for text in given]
