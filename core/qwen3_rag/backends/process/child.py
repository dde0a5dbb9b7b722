"""The child process: loads one backend, then serves runs until its input ends."""

from __future__ import annotations

import os
import signal
from typing import IO

from qwen3_rag.backends.process.messages import (
    Answer,
    Failure,
    Ready,
    begin_messages,
    read_message,
    write_message,
)
from qwen3_rag.plugins import load_backend


def main() -> None:
    """Serve one parent over standard input and output."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # Libraries that print must not write into the protocol, and those that read must not consume it.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        begin_messages(answers)
        _serve(requests, answers)
    except (EOFError, BrokenPipeError):
        _kill_group()  # the parent is gone: nobody waits for an orderly end


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    settings = read_message(requests)
    try:
        backend = load_backend(settings)
    except BaseException as error:
        write_message(answers, Failure.of(error))
        return
    write_message(answers, Ready(backend.token_budget))
    while (prompts := read_message(requests)) is not None:
        try:
            output = backend.run(prompts)
        except BaseException as error:
            write_message(answers, Failure.of(error))
        else:
            write_message(answers, Answer(output, backend.token_budget))
    backend.close()


def _kill_group() -> None:
    """Kill this process and all that it started: the process group that it leads."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
