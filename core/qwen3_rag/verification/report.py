"""What a verification found, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qwen3_rag.models import ModelKind


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: its name in `faults.FAULTS`.
        what: a description, with numbers.
        fix: what to do about it.
    """

    fault: str
    what: str
    fix: str


@dataclass(frozen=True)
class Check:
    """The result of one way of asking.

    Attributes:
        path: the endpoint's path, and how the inputs were sent.
        texts: number of texts or pairs compared; 0 if the server gave nothing to compare.
        longest: tokens of the longest of them.
        difference: largest distance from the local reference; None if there was nothing to compare.
        measure: name of the distance.
        tolerance: the largest distance that passes.
        findings: what is wrong; empty if all agree.
        is_note: whether it only informs about other clients, and does not count.
    """

    path: str
    texts: int
    longest: int
    difference: float | None
    measure: str
    tolerance: float
    findings: tuple[Finding, ...]
    is_note: bool = False

    @property
    def passed(self) -> bool:
        """Whether the numbers are right."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Report:
    """The results of all ways of asking one endpoint or backend.

    Attributes:
        target: URL, or name of the backend.
        model: checkpoint of the local reference.
        kind: "embedding" or "reranking".
        checks: in the order in which they were made, at least one.
        served_model: the model's name in requests to a server; None for a backend, or if none is sent.
    """

    target: str
    model: str
    kind: ModelKind
    checks: tuple[Check, ...]
    served_model: str | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest text that was compared; 0 if none was."""
        return max(check.longest for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether all checks that count passed."""
        return all(check.passed or check.is_note for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "target": self.target,
            "served_model": self.served_model,
            "model": self.model,
            "kind": self.kind,
            "longest": self.longest,
            "checks": [check.as_dict() for check in self.checks],
            "passed": self.passed,
        }
