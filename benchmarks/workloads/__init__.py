"""Jobs that are timed. A workload that needs peers is given those of one kind, loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.comparing import Comparison
from benchmarks.flops import Work
from benchmarks.run_setup import Setup
from benchmarks.ways import Peer


@dataclass(frozen=True)
class Sizes:
    """How much is timed.

    Attributes:
        rounds: of each job; slow ways have fewer.
        texts: of mixed lengths.
        uniform: texts of 512 tokens.
        latency: queries one at a time.
        concurrent: queries at once.
        passages: of the one query.
        many: queries with 20 passages each.
        shallow: layers of the checkpoint for memory and the 32K document.
    """

    rounds: int
    texts: int
    uniform: int
    latency: int
    concurrent: int
    passages: int
    many: int
    shallow: int


@dataclass(frozen=True)
class Bench:
    """What every workload may use."""

    setup: Setup
    sizes: Sizes


@dataclass(frozen=True)
class PeerBench(Bench):
    """What those use that compare peers of one kind, loaded."""

    comparison: Comparison
    peers: list[Peer]

    def only(self, *names: str) -> list[Peer]:
        """The peers whose names begin so."""
        return [peer for peer in self.peers if peer.name.startswith(names)]


@dataclass(frozen=True)
class Result:
    """What a workload found.

    Attributes:
        data: for the JSON file.
        shares: lists of ways within `data`, each with the work that their seconds were for; their shares of
            the matmul rate are added.
        bytes_read: what each call must read from memory at least, where that bounds its time.
    """

    data: dict[str, Any]
    shares: list[tuple[list[dict[str, Any]], Work]] = field(default_factory=list)
    bytes_read: int | None = None
