"""What parent and child say to each other: pickled messages with their length in front."""

from __future__ import annotations

import pickle
import struct
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.errors import BackendError

_LENGTH: Final = struct.Struct("<Q")

_BEGINNING: Final = b"\x00 messages of qwen3-rag begin here \x00"
"""Before it may stand what was printed while the child's interpreter started, by a `sitecustomize` for one."""


@dataclass(frozen=True)
class Ready:
    """The child has loaded its backend, which wants batches of this many tokens."""

    token_budget: int


@dataclass(frozen=True)
class Answer:
    """Values of one run, and the token budget from now on."""

    output: BackendOutput
    token_budget: int


@dataclass(frozen=True)
class Failure:
    """What loading or a run raised, and where: a pickled exception has neither traceback nor cause."""

    error: BaseException
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return what can travel of an error."""
        return cls(_picklable(error), "".join(traceback.format_exception(error)))


def begin_messages(stream: IO[bytes]) -> None:
    """Tell the other side that from here on there are messages.

    Raises:
        OSError: the other side is gone.
    """
    stream.write(_BEGINNING)
    stream.flush()


def await_messages(stream: IO[bytes]) -> bytes:
    """Return what came before the messages.

    Raises:
        EOFError: the other side is gone.
    """
    before = bytearray()
    while not before.endswith(_BEGINNING):
        before += _read_exactly(stream, 1)
    return bytes(before[: -len(_BEGINNING)])


def write_message(stream: IO[bytes], message: Any) -> None:
    """Write one message.

    Raises:
        OSError: the other side is gone.
    """
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
    """
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return pickle.loads(_read_exactly(stream, length))


def _picklable(error: BaseException) -> BaseException:
    """Return the error, or one of the same text when it cannot travel."""
    with suppress(Exception):  # whatever an error's own reduction and constructor raise
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    return BackendError(f"{type(error).__name__}: {error}")


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the other process closed its end")
    return data
