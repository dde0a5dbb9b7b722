"""Draws the results of JSON files.

    python -m benchmarks plot [FILE ...] [--folder benchmarks/results] [--format svg]

Without files, all of benchmarks/results. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.ways import OURS

_RESULTS: Final = Path(__file__).parent / "results"
_THROUGHPUT: Final = ("bulk", "uniform", "rerank", "rerank-many")
_OPTIONS: Final = ("packing", "sharing", "sharing-long", "budget")
_OURS, _THEIRS = "#1f6feb", "#9aa4b2"
_SHORT: Final = {
    "Sentence Transformers": "ST",
    "HuggingFaceEmbeddings": "HF",
    "HuggingFaceEmbedding": "HF",
    "SentenceTransformerRerank": "SBERT",
    "published snippet": "snippet",
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks plot", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--folder", type=Path, default=_RESULTS, help="where the plots go")
    parser.add_argument("--format", choices=["svg", "png"], default="svg")
    given = parser.parse_args(arguments)
    for file in given.files or sorted(_RESULTS.glob("*.json")):
        results = json.loads(file.read_text())
        for name, figure in _figures(results):
            target = given.folder / f"{file.stem}-{name}.{given.format}"
            figure.savefig(
                target, bbox_inches="tight", metadata={"Date": None} if given.format == "svg" else {}
            )
            pyplot.close(figure)
            print(target)


def _figures(results: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What there are results for: each figure with its name."""
    found = {name: one for name, one in results["workloads"].items() if "failed" not in one}
    for name, panels in (("throughput", _THROUGHPUT), ("options", _OPTIONS)):
        ways = {panel: found[panel]["ways"] for panel in panels if panel in found}
        if ways:
            yield name, _bars(results, ways, "tokens_per_second", "tokens of prompts per second")
    if "query" in found:
        yield (
            "latency",
            _bars(results, {"query": found["query"]["ways"]}, "milliseconds", "ms: median and 90 %"),
        )
    if "memory" in found:
        kinds = {
            f"{kind}, 512 tokens": [way for way in found["memory"]["ways"] if way["kind"] == kind]
            for kind in ("embedding", "reranking")
        }
        yield "memory", _bars(results, kinds, "peak_mib", "MiB above the weights")
    if "lengths" in found:
        yield "length", _lines(results, found["lengths"]["points"], "tokens", "tokens of a text")
    if "documents" in found:
        points = [*found["documents"]["points"], *([found["rerank"]] if "rerank" in found else [])]
        yield "documents", _lines(results, points, "documents", "documents of a query")


def _bars(results: dict[str, Any], panels: dict[str, list[dict[str, Any]]], column: str, label: str) -> Any:
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = 1.2 + 0.3 * max(len(ways) for ways in panels.values())
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, height * rows), squeeze=False, layout="constrained"
    )
    for axis, (title, ways) in zip(axes.flat, panels.items(), strict=False):
        shown = [way for way in ways if "failed" not in way]
        bars = [_bar(way, column) for way in shown]
        axis.barh(
            [_name(way) for way in shown],
            [value for value, _, _ in bars],
            xerr=[[down for _, down, _ in bars], [up for _, _, up in bars]],
            color=[_OURS if way["peer"] == OURS else _THEIRS for way in shown],
            ecolor="#555",
        )
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label, fontsize=9)
        _plain(axis)
    figure.suptitle(_caption(results), fontsize=8)
    return figure


def _bar(way: dict[str, Any], column: str) -> tuple[float, float, float]:
    """A way's value, and how far its whisker goes down and up."""
    seconds = way.get("seconds", 0.0)
    if column == "milliseconds":
        return 1000 * seconds, 0.0, 1000 * (way["p90"] - seconds)
    value = way[column]
    if "extremes" not in way:
        return value, 0.0, 0.0
    fastest, slowest = way["extremes"]
    return value, value - value * seconds / slowest, value * seconds / fastest - value


def _lines(results: dict[str, Any], points: list[dict[str, Any]], unit: str, label: str) -> Any:
    """Seconds of one text, or of one query, against its length or its number of documents."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        for way in point["ways"]:
            seconds = way["seconds"] / point["texts"] if unit == "tokens" else way["seconds"]
            lines.setdefault(_name(way), []).append((point[unit], seconds))
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, line in lines.items():
        ours = name.startswith(OURS)
        axis.plot(*zip(*sorted(line), strict=True), marker="o", label=name, linewidth=2.4 if ours else 1.2)
    axis.set(xscale="log", yscale="log", xlabel=label)
    axis.set_ylabel("seconds of a text" if unit == "tokens" else "seconds of a query")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    axis.set_title(_caption(results), fontsize=8)
    return figure


def _name(way: dict[str, Any]) -> str:
    peer = way["peer"]
    for long, short in _SHORT.items():
        peer = peer.replace(long, short)
    setting = f"{way['texts']} texts, {way['setting']}" if "texts" in way else way["setting"]
    return f"{peer}, {setting}"


def _caption(results: dict[str, Any]) -> str:
    machine = results["machine"]
    hardware = (
        ", ".join(machine["gpus"])
        if results["device"] != "cpu"
        else f"{machine['cpu']}, {machine['threads']} threads"
    )
    return f"{results['what']}; {hardware}; {machine['date'][:10]}, commit {machine['commit'][:9]}"


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
