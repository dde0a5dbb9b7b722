"""Verification of a small local model and of a server that may be faulty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faulty_model import Served
from faulty_server import running
from qwen3_rag.settings import EngineSettings
from qwen3_rag.verification import Report
from qwen3_rag.verification.endpoint import Endpoint
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.subject import Subject, make_subject
from qwen3_rag.verification.verify_endpoint import find_ways, verify_endpoint


def reference_of(kind: Any, folder: Path) -> Reference:
    return Reference(EngineSettings(kind, str(folder), device="cpu", dtype="float32"))


def subject_of(
    kind: Any,
    folder: Path,
    *,
    dimensions: int | None = None,
    tolerance: float | None = None,
    max_tokens: int | None = None,
    instruction: str | None = None,
) -> Subject:
    return make_subject(
        reference_of(kind, folder),
        instruction=instruction,
        tolerance=tolerance,
        norms_count=True,
        dimensions=dimensions,
        max_tokens=max_tokens,
    )


def verified(subject: Subject, served: Served, speaks: str, fault: str = "", **changes: Any) -> Report:
    served.fault = fault
    options: dict[str, Any] = {
        "send": "both",
        "template": "server",
        "dimensions": None,
        "served_model": None,
        "path": None,
        "instruction_field": None,
        **changes,
    }
    with running(served, speaks) as url, Endpoint(url, key=None, timeout=60) as endpoint:
        ways = find_ways(
            endpoint,
            subject.kind,
            server=options.pop("server", None),
            model="the-model",
            instruction=None,
            **options,
        )
        return verify_endpoint(subject, ways, model="the-model")


def named(report: Report, path: str) -> list[str]:
    """Faults named for the way of asking whose name holds `path`."""
    check = next(check for check in report.checks if path in check.path)
    return [finding.fault for finding in check.findings]
