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
        what: it in words, with numbers.
        fix: what to do about it.
    """

    fault: str
    what: str
    fix: str


@dataclass(frozen=True)
class Check:
    """One way of asking, compared.

    Attributes:
        path: what was asked and how the inputs were sent.
        texts: how many were compared; 0 when the server gave nothing to compare.
        longest: tokens of the longest of them.
        difference: largest distance from the local reference; None when there is nothing to compare.
        measure: what the distance is.
        tolerance: the largest distance that passes.
        findings: what is wrong; empty when all agrees.
        is_note: whether it was asked for the sake of other clients, and does not count.
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
    """All ways of asking one endpoint or backend.

    Attributes:
        target: URL, or name of the backend.
        model: checkpoint that the local reference computed with.
        kind: "embedding" or "reranking".
        checks: in the order in which they were made, at least one.
        served_model: the name that a server was asked for; None for a backend or where none is sent.
    """

    target: str
    model: str
    kind: ModelKind
    checks: tuple[Check, ...]
    served_model: str | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest text that was compared; 0 when none was."""
        return max(check.longest for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether all that count agree."""
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
