"""A device's process, with a backend without a model: it starts, ends, keeps in step, and is its parent's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from qwen3_rag import WorkerDiedError
from qwen3_rag.backends.process import ProcessBackend, WorkerRestartError
from qwen3_rag.engine import Engine
from qwen3_rag.settings import EngineSettings
from sum_backend import ids, submit

SETTINGS = EngineSettings(kind="embedding", model="sums", backend="sums", device="sums:0")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class PipeThatFailsOnce:
    """A pipe for whose next read or write, after some that pass, there is no memory."""

    def __init__(self, pipe: IO[bytes], passing: int) -> None:
        self._pipe = pipe
        self._passing = passing

    def read(self, length: int) -> bytes:
        self._pass()
        return self._pipe.read(length)

    def write(self, data: bytes) -> int:
        self._pass()
        return self._pipe.write(data)

    def flush(self) -> None:
        self._pipe.flush()

    def close(self) -> None:
        self._pipe.close()

    def _pass(self) -> None:
        self._passing -= 1
        if self._passing == -1:
            raise MemoryError


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a folder on the path in which a backend "sums" is declared as a distribution declares one."""
    metadata = tmp_path / "sums-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[qwen3_rag.backends]\nsums = sums:create\n")
    (tmp_path / "sums.py").write_text(
        "from sum_backend import SumBackend\n\ndef create(settings):\n    return SumBackend()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def worker() -> Iterator[ProcessBackend]:
    worker = ProcessBackend(SETTINGS)
    yield worker
    worker.close()


def run(worker: ProcessBackend, *tokens: int) -> list[float]:
    """The sum of the tokens, from one prompt."""
    values: list[float] = worker.run([ids(*tokens)]).values.tolist()
    return values


def test_closing_ends_the_process(worker: ProcessBackend) -> None:
    pid = worker.pid
    assert _is_alive(pid)
    worker.close()
    assert not _is_alive(pid)


def test_a_worker_that_died_idle_is_replaced_and_fails_nobody(worker: ProcessBackend) -> None:
    old, child = worker.pid, worker._child
    assert old is not None
    assert child is not None
    os.kill(old, signal.SIGKILL)
    _wait_for(lambda: child.poll() is not None, "the worker was not killed")
    assert run(worker, 1, 2) == [3]
    assert worker.pid != old


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_interrupting_the_program_leaves_its_workers_alone(worker: ProcessBackend) -> None:
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)  # Ctrl-C in a terminal goes to a group


def test_what_is_printed_while_a_worker_starts_is_no_message(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "sitecustomize.py").write_text(r"import os; os.write(1, b'welcome to this machine \xff')")
    worker = ProcessBackend(SETTINGS)
    worker.close()
    assert "welcome to this machine" in capfd.readouterr().err


def test_a_worker_that_ends_before_it_listens_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(0)")
    with pytest.raises(WorkerDiedError, match="ended with exit code 0"):
        ProcessBackend(SETTINGS)


@pytest.mark.parametrize("passing", [0, 1], ids=["before the length", "between length and body"])
@pytest.mark.parametrize("pipe", ["stdin", "stdout"])
def test_after_an_answer_that_was_not_read_to_its_end_every_call_gets_its_own(
    worker: ProcessBackend, pipe: str, passing: int
) -> None:
    old, child = worker.pid, worker._child
    setattr(child, pipe, PipeThatFailsOnce(getattr(child, pipe), passing))
    with pytest.raises(MemoryError):
        run(worker, 1, 2)
    assert not _is_alive(old)
    assert [run(worker, 3, 4), run(worker, 5, 6)] == [[7], [11]]
    assert worker.pid != old


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_worker_that_cannot_be_started_again_is_not_tried_for_each_half_of_a_round(
    worker: ProcessBackend, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os; open(os.environ['STARTS'], 'a').write('.'); os._exit(3)"
    )
    starts = tmp_path / "starts"
    engine = Engine(lambda: worker)
    engine.load()
    assert worker.pid is not None
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STARTS", str(starts))
        os.kill(worker.pid, signal.SIGKILL)
        with engine._changed:  # so that all calls are in one round
            calls = [submit(engine, [ids(token)]) for token in range(8)]
        ends = [call.exception(60) for call in calls]
    assert all(isinstance(end, WorkerRestartError) and "exit code 3" in str(end) for end in ends)
    assert len(starts.read_text()) <= 3
    (tmp_path / "sitecustomize.py").unlink()
    assert submit(engine, [ids(1, 2)]).result(60).values.tolist() == [3]
    engine.close()


def test_after_a_call_interrupted_while_it_waited_every_call_gets_its_own(worker: ProcessBackend) -> None:
    old = worker.pid
    assert old is not None

    def interrupt(*_: Any) -> None:
        os.kill(old, signal.SIGCONT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        os.kill(old, signal.SIGSTOP)  # so that the answer is waited for
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            run(worker, 1, 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not _is_alive(old)
    assert [run(worker, 3, 4), run(worker, 5, 6)] == [[7], [11]]


@needs_fork
def test_a_worker_ends_with_its_killed_parent_though_a_forked_child_lives_on() -> None:
    program = """
import os, time
from test_device_processes import SETTINGS, ProcessBackend
workers = [ProcessBackend(SETTINGS) for _ in range(2)]
forked = os.fork()
if forked == 0:
    time.sleep(600)
print(forked, *[worker.pid for worker in workers], flush=True)
time.sleep(600)
"""
    parent = _start(program=program)
    assert parent.stdout is not None
    forked, *pids = map(int, parent.stdout.readline().split())
    parent.kill()
    parent.wait(60)
    parent.stdout.close()
    try:
        assert len(pids) == 2
        _wait_for(lambda: not any(map(_is_alive, pids)), "the workers outlived their parent")
        assert _is_alive(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


@needs_fork
def test_a_forked_child_leaves_workers_and_reused_descriptors_alone() -> None:
    """Even one forked while a thread holds the lock of a pipe's buffer, in the midst of a long message."""
    program = """
import gc, os, signal, threading, time
from test_device_processes import SETTINGS, ProcessBackend, exit_code, ids, run
busy, idle = ProcessBackend(SETTINGS), ProcessBackend(SETTINGS)
files = [file for worker in (busy, idle) for file in (worker._child.stdin, worker._child.stdout)]
pipes = {file.fileno() for file in files}
os.kill(busy.pid, signal.SIGSTOP)
answers = []
thread = threading.Thread(target=lambda: answers.append(run(busy, *[1] * 100_000)))
thread.start()
time.sleep(0.5)  # the pipe is full
forked = os.fork()
if forked == 0:
    mine = {os.open(os.devnull, os.O_RDONLY) for _ in range(20)}
    for worker in (busy, idle):
        worker.close()
    del busy, idle, worker, files
    gc.collect()
    for descriptor in mine:
        os.fstat(descriptor)
    os._exit(0 if pipes <= mine else 7)
ended = exit_code(forked)
os.kill(busy.pid, signal.SIGCONT)
thread.join()
print(ended, answers, run(idle, 1, 2))
for worker in (busy, idle):
    worker.close()
"""
    process = _start("-W", "always::ResourceWarning", program=program, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=120)
    assert output.strip() == "0 [[100000.0]] [3.0]", errors
    assert "ResourceWarning" not in errors


def exit_code(forked: int) -> int:
    """Of a forked child, which is killed after 30 s: it may wait for a lock for ever."""
    for _ in range(300):
        pid, status = os.waitpid(forked, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(forked, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


def _start(*flags: str, program: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *flags, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        **options,
    )


def _wait_for(condition: Any, otherwise: str) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail(f"{otherwise} by 30 s")


def _is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
