"""Results as text, while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_COLUMNS: Final = ("seconds", "p90", "times_ours", "rounds", "tokens_per_second", "share_of_matmul", "peak_mib")


def reporter(file: Path | None) -> Callable[[dict[str, Any]], None]:
    """Return a function that prints the workload that ended last and writes everything so far to a file."""

    def report(results: dict[str, Any]) -> None:
        print(last(results), flush=True)
        if file is not None:
            file.write_text(json.dumps(results, indent=1) + "\n")

    return report


def last(results: dict[str, Any]) -> str:
    """The workload that ended last."""
    name, found = list(results["workloads"].items())[-1]
    if "failed" in found:
        return f"{name}: FAILED: {found['failed']}"
    lines = [f"{name}: {found['what']} [{found['took_seconds']} s; {_floor(found['floor'])}]"]
    for section, ways in _sections(found):
        lines += [f"  {section}"] if section else []
        lines += [_line(way) for way in ways]
    lines += [f"  WRONG, not timed: {peer} {why}" for peer, why in found.get("wrong", {}).items()]
    if len(lines) == 1:
        lines += [f"  {key}: {value}" for key, value in found.items() if key not in ("what", "floor")]
    return "\n".join(lines)


def failures(results: dict[str, Any]) -> list[str]:
    """Names of the workloads that failed."""
    return [name for name, found in results["workloads"].items() if "failed" in found]


def _floor(floor: dict[str, dict[str, float]]) -> str:
    """The machine's limits before and after."""
    rates = {unit: [floor[when][unit] for when in ("before", "after")] for unit in ("matmul", "triad")}
    matmul, triad = (f"{before:.0f} to {after:.0f}" for before, after in rates.values())
    return f"matmul {matmul} GFLOP/s, triad {triad} GB/s"


def _sections(found: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The lists of ways in a workload's results, each with its heading."""
    if "points" in found:
        units = ("tokens", "documents")
        return [
            (next(f"{point[unit]} {unit}" for unit in units if unit in point), point["ways"])
            for point in found["points"]
        ]
    return [
        (key if key != "ways" else "", found[key]) for key in ("ways", "import", "first_vector") if key in found
    ]


def _line(way: dict[str, Any]) -> str:
    name = way.get("way") or " | ".join(str(way[key]) for key in ("peer", "kind", "setting") if key in way)
    numbers = [f"{column}={_number(way[column])}" for column in _COLUMNS if column in way]
    failed = [f"FAILED: {way['failed']}"] if "failed" in way else []
    return "    " + "  ".join([f"{name:<56}", *numbers, *failed])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
