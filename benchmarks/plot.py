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
    found = results["workloads"]
    throughput = {
        name: found[name]["ways"] for name in ("bulk", "uniform", "rerank", "rerank-many") if name in found
    }
    if throughput:
        yield "throughput", _bars(results, throughput, "tokens_per_second", "tokens of prompts per second")
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
    rows = max(len(ways) for ways in panels.values())
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.6 * len(panels), 1.2 + 0.32 * rows), squeeze=False, layout="constrained"
    )
    for axis, (title, ways) in zip(axes[0], panels.items(), strict=True):
        shown = [way for way in ways if "failed" not in way]
        if column == "milliseconds":
            values = [1000 * way["seconds"] for way in shown]
            spread = [[0.0] * len(shown), [1000 * (way["p90"] - way["seconds"]) for way in shown]]
        else:
            values = [way[column] for way in shown]
            spread = [_spread(way, value) for way, value in zip(shown, values, strict=True)]
            spread = [[low for low, _ in spread], [high for _, high in spread]]
        colours = [_OURS if way["peer"] == OURS else _THEIRS for way in shown]
        axis.barh([_name(way) for way in shown], values, color=colours, xerr=spread, ecolor="#555")
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label, fontsize=9)
        _plain(axis)
    figure.suptitle(_caption(results), fontsize=8)
    return figure


def _spread(way: dict[str, Any], value: float) -> list[float]:
    """How far a rate goes down and up between the slowest and the fastest round."""
    if "extremes" not in way:
        return [0.0, 0.0]
    fast, slow = way["extremes"]
    return [value - value * way["seconds"] / slow, value * way["seconds"] / fast - value]


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
