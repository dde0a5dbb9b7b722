"""A backend in a process prints, fails, changes its budget, starts processes of its own, and is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag.backends.process import ProcessBackend, parent
from qwen3_rag.settings import EngineSettings
from sum_backend import POISON, ids

SETTINGS = EngineSettings(kind="embedding", model="sums", backend="lively", device="sums:0")
LIVELY = """
import os, subprocess, sys, time
from pathlib import Path
from sum_backend import SumBackend

FOLDER = Path(__file__).parent

class Lively(SumBackend):
    token_budget = int(os.environ["LIVELY_TOKEN_BUDGET"])

    def run(self, prompts):
        print("a progress bar", flush=True)
        os.write(1, b"a library in C")
        assert sys.stdin.read() == ""
        self.token_budget += 1
        if prompts[0].token_ids.tolist() == [1]:
            helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (FOLDER / "helper").write_text(str(helper.pid))
        return super().run(prompts)

    def close(self):
        (FOLDER / "closed").touch()
        if (FOLDER / "stubborn").exists():
            time.sleep(600)

def create(settings):
    print("weights are loaded", flush=True)
    if (FOLDER / "broken").exists():
        sys.exit("the library gave up")
    return Lively()
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """On the path, with a backend "lively" declared as a distribution declares one."""
    folder = tmp_path_factory.mktemp("lively")
    metadata = folder / "lively-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lively\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[qwen3_rag.backends]\nlively = lively:create\n")
    (folder / "lively.py").write_text(LIVELY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("LIVELY_TOKEN_BUDGET", "5")
        yield folder


@pytest.fixture
def worker() -> Iterator[ProcessBackend]:
    worker = ProcessBackend(SETTINGS)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def lasting() -> Iterator[ProcessBackend]:
    """For tests that leave it as it was."""
    worker = ProcessBackend(SETTINGS)
    yield worker
    worker.close()


@pytest.fixture
def mark(folder: Path) -> Iterator[Callable[[str], None]]:
    """Tell the backend how to behave in this test."""
    made: list[Path] = []

    def make(name: str) -> None:
        made.append(folder / name)
        made[-1].touch()

    yield make
    for path in made:
        path.unlink()


def run(worker: ProcessBackend, *tokens: int) -> list[float]:
    """The sum of the tokens, from one prompt."""
    values: list[float] = worker.run([ids(*tokens)]).values.tolist()
    return values


def test_what_a_backend_prints_and_reads_is_no_message(capfd: Any) -> None:
    worker = ProcessBackend(SETTINGS)
    assert [run(worker, 3, 4), run(worker, 5, 6)] == [[7], [11]]
    worker.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("weights are loaded") == 1
    assert err.count("a progress bar") == err.count("a library in C") == 2


def test_variables_reach_the_backend_and_its_token_budget_comes_back(lasting: ProcessBackend) -> None:
    assert lasting.token_budget == 5
    run(lasting, 3, 4)
    assert lasting.token_budget == 6


def test_a_run_that_fails_leaves_the_process_at_work(lasting: ProcessBackend) -> None:
    old = lasting.pid
    with pytest.raises(ArithmeticError, match="poison") as caught:
        run(lasting, POISON)
    assert "in the process of sums:0" in str(caught.value.__cause__)
    assert "sum_backend.py" in str(caught.value.__cause__), "where it happened"
    assert run(lasting, 3, 4) == [7]
    assert lasting.pid == old


def test_closing_closes_the_backend_and_a_run_starts_another(worker: ProcessBackend, folder: Path) -> None:
    (folder / "closed").unlink(missing_ok=True)
    worker.close()
    assert (folder / "closed").exists()
    assert worker.pid is None
    worker.close()
    assert run(worker, 3, 4) == [7]


def test_a_backend_that_does_not_end_is_killed(
    worker: ProcessBackend, mark: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "_SECONDS_TO_CLOSE", 0.5)
    mark("stubborn")
    pid = worker.pid
    worker.close()
    assert not _is_alive(pid)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_a_backend_started_ends_with_it(worker: ProcessBackend, folder: Path, how: str) -> None:
    run(worker, 1)
    helper = int((folder / "helper").read_text())
    assert _is_alive(helper)
    if how == "killed":
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    worker.close()
    assert worker.pid is None
    _wait_until_dead(helper)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_what_a_backend_started_ends_with_the_killed_program(folder: Path) -> None:
    program = """
import os, signal
from test_device_process_backends import SETTINGS, ProcessBackend, run
run(ProcessBackend(SETTINGS), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=False)
    _wait_until_dead(int((folder / "helper").read_text()))


def test_a_load_that_ends_the_process_is_an_error(mark: Callable[[str], None]) -> None:
    mark("broken")
    with pytest.raises(SystemExit, match="the library gave up"):
        ProcessBackend(SETTINGS)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs PYTHONSAFEPATH")
def test_a_module_in_the_current_folder_is_not_imported(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("current")
    (folder / "struct.py").write_text("raise RuntimeError('the wrong struct')")
    (folder / "lively.py").write_text("raise RuntimeError('the wrong backend')")
    monkeypatch.chdir(folder)
    worker = ProcessBackend(SETTINGS)
    worker.close()


def _wait_until_dead(pid: int) -> None:
    for _ in range(300):
        if not _is_alive(pid):
            return
        time.sleep(0.1)
    pytest.fail("alive after 30 s")


def _is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
