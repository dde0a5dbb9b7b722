"""What can go wrong with a vLLM engine as a whole. Nobody's prompts would fare better alone."""

from __future__ import annotations

from qwen3_rag.errors import BackendError, WorkerDiedError


class VllmStartError(BackendError):
    """vLLM could not start."""

    concerns_every_prompt = True


class VllmDiedError(WorkerDiedError):
    """A process of vLLM is gone. The next call starts another engine."""

    concerns_every_prompt = True
