"""Is this endpoint or backend giving the right numbers, and if not, what is wrong with it?

The numbers that come back for fixed texts are compared with those of the Transformers backend. When
they differ, that backend computes what each known fault would give, and the fault that reproduces
the numbers is named.
"""

from qwen3_rag.verification.report import Check, Finding, Report

__all__ = ["Check", "Finding", "Report"]
