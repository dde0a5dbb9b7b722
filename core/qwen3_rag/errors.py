"""Every error this package raises on purpose.

Qwen3RagError
├── ConfigurationError (ValueError)      an argument is out of range or names nothing known
│   └── WrongModelKindError              a reranker was given to Embedder, or the other way round
├── MissingExtraError (ImportError)      an optional dependency is not installed
├── CheckpointError (OSError)            weights or tokenizer absent, corrupt or not a Qwen3 checkpoint
├── PromptTooLongError (ValueError)      the part of a prompt that is never cut leaves no room
├── NonFiniteOutputError (ArithmeticError)  the model returned NaN or infinity
├── OutOfMemoryError (MemoryError)       one text alone does not fit into the device's memory
├── DeadlineExceededError (TimeoutError) a call took longer than its `timeout`
├── BackendError (RuntimeError)          a backend or server gave no usable answer
│   ├── WorkerDiedError                  the process that ran the model on a device is gone
│   └── ...                              more in `qwen3_rag.backends.process`, `.vllm` and `.remote`
├── EngineClosedError (RuntimeError)     the engine was closed before the call was computed
└── ForkedProcessError (RuntimeError)    a loaded engine was used in a forked child process

TruncationWarning (UserWarning)          documents of a call were cut to fit `max_tokens`

Each also derives from the builtin in parentheses, so code that catches the builtin keeps working.
A text that is not a string is a plain ``TypeError`` naming its index, as is an argument of a wrong type.
"""

from __future__ import annotations

import warnings
from copy import copy
from typing import ClassVar


class TruncationWarning(UserWarning):
    """Documents of a call were cut to fit `max_tokens`; `usage` counts them."""


# Each call that cuts something says so: Python would show equal words of one line of code once. What a user
# filters comes before this.
warnings.filterwarnings("always", category=TruncationWarning, append=True)


class Qwen3RagError(Exception):
    """Base class of all errors raised by this package."""

    concerns_every_prompt: ClassVar[bool] = False
    """Whether the cause lies with the backend, so that no other prompt would fare better just now."""


class ConfigurationError(Qwen3RagError, ValueError):
    """An argument is out of range or names something that does not exist."""

    concerns_every_prompt = True


class WrongModelKindError(ConfigurationError):
    """An embedding checkpoint was given to `Reranker`, or a reranker to `Embedder`."""


class MissingExtraError(Qwen3RagError, ImportError):
    """An optional dependency is needed that is not installed."""

    concerns_every_prompt = True

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f'{purpose} needs an extra that is not installed: pip install "qwen3-rag[{extra}]"')
        self.purpose = purpose
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.purpose, self.extra)


class CheckpointError(Qwen3RagError, OSError):
    """A checkpoint's weights or tokenizer are absent, corrupt, or not a Qwen3 model."""

    concerns_every_prompt = True


class PromptTooLongError(Qwen3RagError, ValueError):
    """Template, instruction and query leave no room for anything else within `max_tokens`."""


class NonFiniteOutputError(Qwen3RagError, ArithmeticError):
    """The model returned NaN or infinity for a text."""


class OutOfMemoryError(Qwen3RagError, MemoryError):
    """A single text does not fit into the device's memory."""


class DeadlineExceededError(Qwen3RagError, TimeoutError):
    """A call took longer than the `timeout` that its component was given."""


class BackendError(Qwen3RagError, RuntimeError):
    """A backend or server gave no usable answer."""


class WorkerDiedError(BackendError):
    """The process that ran the model on a device is gone. The next call starts a new one."""


class EngineClosedError(Qwen3RagError, RuntimeError):
    """The engine was closed before the call was computed."""

    concerns_every_prompt = True


class ForkedProcessError(Qwen3RagError, RuntimeError):
    """A loaded engine was used in a child process made by fork."""


def concerns_every_prompt(error: BaseException) -> bool:
    """Whether computing other prompts alone, after a batch failed with this error, is of no use."""
    return not isinstance(error, Exception) or getattr(error, "concerns_every_prompt", False)


def copy_for_caller(error: BaseException) -> BaseException:
    """Return a copy of an error for one caller alone; the same object where a copy would not say the same.

    Raising an error adds frames to its traceback. Callers who shared one object would see each other's frames,
    and with them their texts. This function never raises, since that would hide the original error.
    """
    try:
        copied = copy(error)
        if type(copied) is not type(error) or str(copied) != str(error):
            return error
        copied.__cause__, copied.__context__ = error.__cause__, error.__context__
        copied.__suppress_context__ = error.__suppress_context__
        return copied.with_traceback(error.__traceback__)
    except Exception:  # whatever its own reduction and constructor raise, or a frozen dataclass when it is set
        return error


def future_safe(error: BaseException) -> BaseException:
    """Return an error that a future of asyncio accepts: given a StopIteration it raises, and is never done."""
    if not isinstance(error, StopIteration):
        return error
    taken = BackendError(f"{error!r} was raised where a model is opened or run; it would end a generator")
    taken.__cause__ = error
    return taken
