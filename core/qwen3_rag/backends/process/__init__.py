"""Any backend in a process of its own: how several devices of one machine run in parallel.

Threads would not do: launching a model's kernels is Python work, so devices would contend for the interpreter
lock.
"""

from qwen3_rag.backends.process.parent import ProcessBackend, WorkerRestartError

__all__ = ["ProcessBackend", "WorkerRestartError"]
