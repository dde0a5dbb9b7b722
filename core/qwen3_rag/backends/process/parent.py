"""The parent's side: a `Backend` whose model lives in a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader, BufferedWriter
from typing import Any, Final

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.process.messages import (
    Answer,
    Failure,
    Ready,
    await_messages,
    read_message,
    write_message,
)
from qwen3_rag.errors import BackendError, WorkerDiedError
from qwen3_rag.forking import after_fork_in_child
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt

_SECONDS_TO_CLOSE: Final = 60
"""A child that has not ended by then is killed. Chosen, not tuned."""


class WorkerRestartError(WorkerDiedError):
    """A device's process is gone, and no other can be started. The next call tries again."""

    concerns_every_prompt = True


class ProcessBackend:
    """Runs the backend that the settings name in a child process, started again if it dies.

    The child is started by its module's name, not by `multiprocessing`, so that scripts need no
    `if __name__ == "__main__"`. It ends by itself when this process does, however that happens.

    Args:
        settings: for one device.

    Attributes:
        concurrency: 1; the child runs one batch at a time.
        token_budget: the child's.

    Raises:
        Whatever loading the backend raises; WorkerDiedError if the child dies over it.
    """

    concurrency = 1

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self.token_budget = 0
        _backends.add(self)
        self._start()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        return self._child.pid if self._child is not None else None

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts in the child; see `Backend.run`.

        Raises:
            WorkerDiedError: the child died over them.
            WorkerRestartError: it died before, and no other can be started. Otherwise what the child's backend
                raised.
        """
        if self._child is not None and self._child.poll() is not None:
            self._reap(self._child)  # it died between runs, so no work is lost
        if self._child is None:
            self._restart()
        answer = self._ask(list(prompts))
        assert isinstance(answer, Answer)
        self.token_budget = answer.token_budget
        return answer.output

    def close(self) -> None:
        """Ask the child to end, and kill it if it does not."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            write_message(child.stdin, None)
            child.wait(_SECONDS_TO_CLOSE)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            self._reap(child)

    def _restart(self) -> None:
        try:
            self._start()
        except Exception as error:
            raise WorkerRestartError(
                f"the process that ran {self._settings.model} on {self._settings.device} had ended, and a new "
                f"one could not be started: {error}"
            ) from error

    def _start(self) -> None:
        # The child must import what this process can import, plugins outside site-packages included, but
        # (PYTHONSAFEPATH) no module that happens to be in the current folder.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONSAFEPATH": "1",
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "qwen3_rag.backends.process.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # A process group of its own: Ctrl-C in a terminal reaches the program and not its workers, and
            # what a backend starts itself (vLLM's engines) can be killed together with the child.
            start_new_session=True,
        )
        try:
            self._show_what_was_printed(self._child)
            ready = self._ask(self._settings)
        except BaseException:
            self.close()
            raise
        assert isinstance(ready, Ready)
        self.token_budget = ready.token_budget

    def _show_what_was_printed(self, child: subprocess.Popen[bytes]) -> None:
        """Copy to standard error what was printed before the protocol; later output goes there directly."""
        assert child.stdout is not None
        try:
            printed = await_messages(child.stdout)
        except EOFError as error:
            raise self._died(child) from error
        if printed:
            print(printed.decode(errors="replace"), end="", file=sys.stderr)

    def _ask(self, message: Any) -> Ready | Answer:
        """Write a request and read its answer.

        Messages carry no ids: an answer is matched to its request by order alone. So a child stays in use only
        if its answer was read completely. After an error or an interrupt the answer may still arrive, or be
        half read, and the next request would get it.
        """
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            write_message(child.stdin, message)
            answer = read_message(child.stdout)
        except (OSError, EOFError) as error:
            raise self._died(child) from error
        except BaseException:
            self._reap(child)
            raise
        if isinstance(answer, Failure):
            raise answer.error from BackendError(
                f"in the process of {self._settings.device}:\n{answer.traceback}"
            )
        assert isinstance(answer, Ready | Answer)
        return answer

    def _died(self, child: subprocess.Popen[bytes]) -> WorkerDiedError:
        code = self._reap(child)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(
            f"the process that ran {self._settings.model} on {self._settings.device} {how}; what it was "
            "computing is lost, and the next call starts a new one (out of memory is the usual reason)"
        )

    def _reap(self, child: subprocess.Popen[bytes]) -> int:
        """Kill a child that still runs and whatever it started, wait for it, and return its exit code."""
        self._child = None
        if child.poll() is None:
            child.kill()
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):  # the group is empty
                os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        _close_pipes(child)
        return code

    def _forget_after_fork(self) -> None:
        """In a forked child: drop the device's process, which belongs to the parent.

        It ends when the last write end of its input is closed, so this process must not keep one.
        """
        child, self._child = self._child, None
        if child is not None:
            _drop_pipes(child)
            child.returncode = 0  # the parent waits for it; without a code, `subprocess` warns here


_backends: weakref.WeakSet[ProcessBackend] = weakref.WeakSet()


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        with suppress(OSError):  # flushes what the child never read
            pipe.close()


def _drop_pipes(child: subprocess.Popen[bytes]) -> None:
    """Close the pipes' descriptors without flushing.

    Closes the raw files, not the buffers: what these hold is the parent's to write, and a thread of the parent
    may have held their locks at the fork. A buffer counts as closed with its raw file, and that forgets its
    descriptor, so the number is not closed again once another file has it.
    """
    for pipe in (child.stdin, child.stdout):
        assert isinstance(pipe, BufferedReader | BufferedWriter)
        with suppress(OSError):  # another fork hook has closed it
            pipe.raw.close()


@after_fork_in_child
def _forget_all() -> None:
    for backend in list(_backends):
        backend._forget_after_fork()
