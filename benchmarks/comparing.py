"""Peers beside us on one job: parity first, then a sweep of their settings, then rounds in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from qwen3_rag.backends.device.out_of_memory import is_out_of_memory

from benchmarks.parity import Kind, Truth, Verdict, check
from benchmarks.timing import in_turn, summary
from benchmarks.ways import OURS, Outcome, Peer, Run, failure

_SAMPLE: Final = 8
"""Items of the check before timing, evenly spaced over all of them."""
_MANY: Final = 32
"""Of so many items every second fills enough batches for a sweep."""
_ROUNDS_OF_WRAPPERS: Final = 2
_GIVE_UP: Final = 1.3
"""A sweep ends at the first setting that takes this many times the best so far: with growing batches the
time falls, then rises."""


@dataclass
class Comparison:
    """Compares the peers of one kind; remembers between jobs who is wrong and which setting is best.

    Attributes:
        kind: what the peers give.
        truth: gives the right answers; slow.
        dtype: decides how far an answer may be off.
        rounds: of each job, unless a way is too slow.
        seconds_per_way: a way that is slower has fewer rounds, at least one.
        best: fastest setting by peer, of those swept.
        wrong: by peer, what its answers measured.
    """

    kind: Kind
    truth: Callable[[Sequence[Any]], Truth]
    dtype: torch.dtype
    rounds: int
    seconds_per_way: float
    best: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self,
        peers: Sequence[Peer],
        items: Sequence[Any],
        *,
        sweep: bool = False,
        defaults: bool = True,
        rounds: int | None = None,
    ) -> dict[str, Any]:
        """Time the peers, ours first.

        Args:
            sweep: look for each peer's best setting first; otherwise the last found is used.
            defaults: also time each peer's default.
            rounds: overrides the comparison's.

        Returns:
            `ways`, `sweeps` (seconds by peer and setting), `parity_of_sample` (what the check against
            the truth measured), `noise` (how far off the published snippet is itself) and `wrong` (peers that
            are not timed).

        Raises:
            RuntimeError: our own answers are wrong.
        """
        expected = self.truth(spaced(items, _SAMPLE))
        right, checked = self._right_ones(peers, items, expected)
        sweeps = {peer.name: self._sweep(peer, items) for peer in right} if sweep else {}
        ways = {
            (peer.name, setting): peer for peer in right for setting in self._settings(peer, defaults=defaults)
        }
        calls = {_label(*way): partial(awake, peer.settings[way[1]], items) for way, peer in ways.items()}
        most = self.rounds if rounds is None else rounds
        rounds_of = {
            _label(*way): most if peer.wraps is None else min(most, _ROUNDS_OF_WRAPPERS)
            for way, peer in ways.items()
        }
        seconds, first = in_turn(calls, rounds_of, self.seconds_per_way)
        base = next(iter(calls))
        ours = Truth(first[base].values, expected.noise)
        found = []
        for (name, setting), peer in ways.items():
            label = _label(name, setting)
            values = first[label].values
            verdict = check(self.kind, values, ours, self.dtype, int8=peer.int8, are_apart=True)
            if not verdict.right:
                self.wrong[name] = {"setting": setting, **verdict.measured}
                continue
            found.append(
                {
                    "peer": name,
                    "setting": setting,
                    "is_default": setting == peer.default,
                    **summary(seconds[label], seconds[base]),
                    "parity_with_ours": verdict.measured,
                }
            )
        if defaults:
            self._remember(found)
        return {
            "ways": found,
            "sweeps": {name: times for name, times in sweeps.items() if times},
            "parity_of_sample": checked,
            "noise": expected.noise,
            "wrong": {peer.name: self.wrong[peer.name] for peer in peers if peer.name in self.wrong},
        }

    def check_queries(self, peer: Peer, run: Run, queries: Sequence[str], expected: Truth) -> bool:
        """Check a peer's vectors of queries, which it may get wrong where its documents are right."""
        verdict = self._check(run, queries, expected, int8=peer.int8)
        if not verdict.right:
            self._refuse(peer, f"{peer.name}, queries", verdict.measured)
        return verdict.right

    def _check(self, run: Run, items: Sequence[Any], expected: Truth, *, int8: bool) -> Verdict:
        """Compare a run with the truth; one that fails is no better than a wrong one."""
        try:
            values = run(items).values
        except Exception as error:
            return Verdict(False, {"failed": failure(error)})
        return check(self.kind, values, expected, self.dtype, int8=int8)

    def _refuse(self, peer: Peer, name: str, measured: dict[str, Any]) -> None:
        """Remember who is wrong; we ourselves may not be."""
        if peer.name == OURS:
            raise RuntimeError(f"our own answers are wrong: {measured}")
        self.wrong[name] = measured

    def _right_ones(
        self, peers: Sequence[Peer], items: Sequence[Any], expected: Truth
    ) -> tuple[list[Peer], dict[str, dict[str, Any]]]:
        """The peers whose answers to a sample are right, and how near. It also is their warm-up."""
        sample = spaced(items, _SAMPLE)
        right, checked = [], {}
        for peer in peers:
            if peer.name in self.wrong:
                continue
            verdict = self._check(peer.settings[peer.first], sample, expected, int8=peer.int8)
            if verdict.right:
                right.append(peer)
                checked[peer.name] = verdict.measured
                continue
            self._refuse(peer, peer.name, {"setting": peer.first, **verdict.measured})
        return right, checked

    def _sweep(self, peer: Peer, items: Sequence[Any]) -> dict[str, float]:
        """Time each setting but the default once, of many items on every second; a sample warms it up. With
        growing batches the first that does not fit into memory is the end."""
        of_wrapped = self.best.get(peer.wraps or "")
        if of_wrapped is not None and of_wrapped in peer.settings:
            self.best[peer.name] = of_wrapped
            return {}
        swept = [setting for setting in peer.settings if setting != peer.default]
        given = items[::2] if len(items) >= _MANY else items
        if len(swept) < 2:
            self.best[peer.name] = only = next(iter(swept), peer.first)
            peer.settings[only](given)  # else its first round would be the first of so many items
            return {}
        peer.settings[swept[0]](spaced(items, _SAMPLE))
        times: dict[str, float] = {}
        for setting in swept:
            try:
                times[setting] = peer.settings[setting](given).seconds
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                break
            if times[setting] > _GIVE_UP * min(times.values(), default=math.inf):
                break
        self.best[peer.name] = min(times, key=lambda setting: times[setting], default=peer.first)
        return times

    def _remember(self, found: Sequence[dict[str, Any]]) -> None:
        """Keep each peer's faster setting, which may be its default."""
        for way in sorted(found, key=lambda way: -way["seconds"]):
            self.best[way["peer"]] = way["setting"]

    def _settings(self, peer: Peer, *, defaults: bool) -> list[str]:
        best = self.best.get(peer.name, peer.first)
        wanted = [peer.default, best] if defaults and peer.default is not None else [best]
        return list(dict.fromkeys(setting for setting in wanted if setting is not None))


def awake(run: Run, items: Sequence[Any], first: Sequence[Any] | None = None) -> Outcome:
    """Run a job right after a short one, which is not timed.

    Between its turns a process rests for up to minutes. On a virtual machine what its first touches of memory
    then cost may be the host's: a read of 16 MiB took 80 ms after a second, 0.5 ms without the rest. A job of
    half a second would mostly measure that.

    Args:
        run: of a process.
        items: the job.
        first: the short job; None takes the first item.
    """
    run(items[:1] if first is None else first)
    return run(items)


def spaced(items: Sequence[Any], count: int) -> list[Any]:
    """At most so many items, evenly spaced."""
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def _label(name: str, setting: str) -> str:
    return f"{name} ({setting})"
