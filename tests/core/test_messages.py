"""Messages between two processes, of which either may print before them or end in their midst."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

import pytest
from qwen3_rag import CheckpointError
from qwen3_rag.backends.process.messages import (
    Failure,
    await_messages,
    begin_messages,
    read_message,
    write_message,
)


def written(*messages: Any) -> bytes:
    stream = BytesIO()
    begin_messages(stream)
    for message in messages:
        write_message(stream, message)
    return stream.getvalue()


@pytest.mark.parametrize("printed", [b"", b"hello from sitecustomize\n", b"\x00 messages of"])
def test_what_was_printed_before_the_messages_is_told_apart(printed: bytes) -> None:
    stream = BytesIO(printed + written("first", {"second": 2}))
    assert await_messages(stream) == printed
    assert [read_message(stream), read_message(stream)] == ["first", {"second": 2}]


def test_a_process_that_ends_before_its_messages_begin_is_gone() -> None:
    for length in range(len(written())):
        with pytest.raises(EOFError, match="closed its end"):
            await_messages(BytesIO(b"printed" + written()[:length]))


def test_a_message_that_was_begun_and_not_ended_is_none() -> None:
    whole = written("a message")[len(written()) :]
    for length in range(len(whole)):
        with pytest.raises(EOFError, match="closed its end"):
            read_message(BytesIO(whole[:length]))


def test_what_is_written_does_not_wait_for_more() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "wb") as stream, os.fdopen(reader, "rb", buffering=0) as other:
        begin_messages(stream)
        assert await_messages(other) == b""
        write_message(stream, "a message")
        assert read_message(other) == "a message"


def test_an_error_travels_with_the_traceback_of_its_causes() -> None:
    def fails() -> None:
        try:
            raise KeyError("before")
        except KeyError as before:
            raise CheckpointError("gone") from before

    with pytest.raises(CheckpointError) as caught:
        fails()
    failure = Failure.of(caught.value)
    assert failure.error is caught.value
    assert "KeyError: 'before'" in failure.traceback
    assert failure.traceback.endswith("CheckpointError: gone\n")
