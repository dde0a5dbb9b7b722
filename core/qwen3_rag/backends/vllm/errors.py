"""Errors of a vLLM engine as a whole, which retrying prompts one by one cannot avoid."""

from __future__ import annotations

from qwen3_rag.errors import BackendError, WorkerDiedError


class VllmStartError(BackendError):
    """vLLM could not start."""

    concerns_every_prompt = True


class VllmDiedError(WorkerDiedError):
    """A process of vLLM died. The next call starts another engine."""

    concerns_every_prompt = True
