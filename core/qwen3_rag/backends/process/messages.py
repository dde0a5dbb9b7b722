"""Messages between parent and child: pickles, each with its length in front."""

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
"""Marks the start of the protocol; anything before it was printed during interpreter start-up, for example by
`sitecustomize`."""


@dataclass(frozen=True)
class Ready:
    """The child has loaded its backend, which has this token budget."""

    token_budget: int


@dataclass(frozen=True)
class Answer:
    """The output of one run, and the backend's token budget after it."""

    output: BackendOutput
    token_budget: int


@dataclass(frozen=True)
class Failure:
    """What loading or a run raised, and where: a pickled exception has neither traceback nor cause.

    Attributes:
        error: as it was raised, or a BackendError of the same text if it cannot be pickled.
        traceback: formatted, causes included.
    """

    error: BaseException
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the message for an error."""
        return cls(_picklable(error), "".join(traceback.format_exception(error)))


def begin_messages(stream: IO[bytes]) -> None:
    """Write the mark after which there are only messages.

    Raises:
        OSError: the other process is gone.
    """
    stream.write(_BEGINNING)
    stream.flush()


def await_messages(stream: IO[bytes]) -> bytes:
    """Wait for the mark, and return what was printed before it.

    Raises:
        EOFError: the other process is gone.
    """
    before = bytearray()
    while not before.endswith(_BEGINNING):
        before += _read_exactly(stream, 1)
    return bytes(before[: -len(_BEGINNING)])


def write_message(stream: IO[bytes], message: Any) -> None:
    """Write one message.

    Raises:
        OSError: the other process is gone.
    """
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: the other process is gone.
    """
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return pickle.loads(_read_exactly(stream, length))


def _picklable(error: BaseException) -> BaseException:
    """Return the error, or a BackendError of the same text if it cannot be pickled and unpickled."""
    with suppress(Exception):  # whatever an error's own reduction and constructor raise
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    return BackendError(f"{type(error).__name__}: {error}")


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the other process closed its end")
    return data
