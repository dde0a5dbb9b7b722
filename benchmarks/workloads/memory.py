"""Peak memory, and one document of the model's whole context: each measurement in a fresh process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qwen3_rag.models import ModelKind

from benchmarks.child import Measured, Task, measure
from benchmarks.flops import embedding_work
from benchmarks.parity import Truth, check
from benchmarks.ways import OURS
from benchmarks.workloads import Bench, Result

_SNIPPET: Final = "published snippet"
_LONGEST: Final = 32768


@dataclass(frozen=True)
class _Case:
    """A way with its batch size.

    Attributes:
        count: texts; fewer than others where one batch has the peak of all, or None for as many.
    """

    way: str
    kind: ModelKind
    setting: str
    batch_size: int = 0
    count: int | None = None


_ALL: Final = 1 << 20

_MEMORY: Final = (
    _Case(OURS, "embedding", "default"),
    _Case(_SNIPPET, "embedding", "one batch, as published", _ALL),
    _Case(_SNIPPET, "embedding", "batches of 8, one of them", 8, 8),
    _Case("Sentence Transformers", "embedding", "batches of 32, one of them", 32, 32),
    _Case(OURS, "reranking", "default"),
    # 256 x 512 logits of 151,669 tokens would take 40 GB in bfloat16.
    _Case(_SNIPPET, "reranking", "batches of 8, one of them", 8, 8),
)
_LONG: Final = (
    _Case(OURS, "embedding", "default"),
    _Case(_SNIPPET, "embedding", "as published", 1),
)
_FEW: Final = 32
_MANY: Final = 256


def memory(bench: Bench) -> Result:
    """Peak above the weights for 256 texts of 512 tokens, and for 32 where the number could matter."""
    cases = [(case, case.count or _MANY) for case in _MEMORY]
    cases += [(case, _FEW) for case in _MEMORY if case.kind == "embedding" and case.count is None]
    ways = [{"texts": count, **_described(case, _measure(bench, case, count, 512))} for case, count in cases]
    return Result({"layers": bench.sizes.shallow, "tokens": 512, "ways": ways})


def long_document(bench: Bench) -> Result:
    """One document of 32,768 tokens: seconds of a single run, and peak memory above the weights."""
    found = {case: _measure(bench, case, 1, _LONGEST) for case in _LONG}
    expected = next(iter(found.values())).values
    ways = []
    for case, measured in found.items():
        way = _described(case, measured)
        if measured.values is not None and expected is not None:
            verdict = check("embedding", measured.values, Truth(expected), bench.setup.dtype, are_apart=True)
            way |= {"parity_with_ours": verdict.measured, "right": verdict.right}
            way |= {"seconds": measured.seconds} if verdict.right else {}
        ways.append(way)
    work = embedding_work(bench.setup.model("embedding", bench.sizes.shallow), [_LONGEST])
    timed = [way for way in ways if "seconds" in way]
    return Result({"layers": bench.sizes.shallow, "tokens": _LONGEST, "ways": ways}, [(timed, work)])


def _measure(bench: Bench, case: _Case, count: int, tokens: int) -> Measured:
    setup = bench.setup
    layers = bench.sizes.shallow
    folder = setup.checkpoint(case.kind, layers)
    values = Path(setup.work, "values.npy")
    task = Task(
        case.way,
        case.kind,
        setup.size,
        layers,
        str(setup.device),
        setup.dtype_name,
        str(folder),
        count,
        tokens,
        min(case.batch_size, count),
        str(values),
    )
    return measure(task)


def _described(case: _Case, found: Measured) -> dict[str, Any]:
    way: dict[str, Any] = {"peer": case.way, "kind": case.kind, "setting": case.setting}
    if found.failed is not None:
        return {**way, "failed": found.failed}
    return {**way, "peak_mib": round(found.peak_bytes / 2**20, 1)}
