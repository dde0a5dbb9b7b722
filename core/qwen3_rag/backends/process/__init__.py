"""Any backend in a process of its own: how one machine's devices work side by side.

Threads would not do: launching a model's kernels is Python work, and several devices would take
turns at the interpreter lock.
"""

from qwen3_rag.backends.process.parent import ProcessBackend

__all__ = ["ProcessBackend"]
