"""Does an endpoint or backend give the right numbers, and if not, what is wrong with it?

Its results for fixed texts are compared with those of the Transformers backend. If they differ, that backend
computes what each known fault would give, and the fault that reproduces the results is named.
"""

from qwen3_rag.verification.report import Check, Finding, Report

__all__ = ["Check", "Finding", "Report"]
