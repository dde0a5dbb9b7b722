"""vLLM processes on the loopback interface, and what is left of processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from qwen3_rag.models import ModelKind
from qwen3_rag.serving import ServedModel, serve_command

SECONDS = 900
"""A bound for a machine that is busy with other things; on a quiet one it takes a minute."""

KEY = "vllm-test-key-0f3a"
"""What the servers guard."""
_direct = build_opener(ProxyHandler({}))


@dataclass
class Process:
    """A started Python program and the file that gets what it prints."""

    popen: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait(self, seconds: float) -> str:
        """Wait for its end and return what it printed."""
        self.popen.wait(seconds)
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until a server answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.popen.poll() is None, self.log.read_text(errors="replace")
            try:
                with _direct.open(f"{self.url}/health", timeout=5) as response:
                    if response.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.3)
        raise TimeoutError(self.log.read_text(errors="replace"))


@contextmanager
def running(log: Path, *arguments: str, **variables: str) -> Iterator[Process]:
    """Run Python with arguments and further environment variables; end it in the end."""
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
        )
        try:
            yield Process(popen, log)
        finally:
            popen.terminate()
            try:
                popen.wait(30)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


@contextmanager
def serving(folder: Path, kind: ModelKind, log: Path) -> Iterator[Process]:
    """Run vLLM's own HTTP server for a checkpoint, as `qwen3-rag serve` says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ServedModel(str(folder), kind, dtype="float32", port=port, cpu=True)
    program, action, model, *options = serve_command("vllm", served).argv
    assert (program, action) == ("vllm", "serve")
    command = [
        # The program looks for a distribution named vllm, which the CPU build is not.
        *("-m", "vllm.entrypoints.openai.api_server", "--model", model, *options),
        # The size that is given last counts; the printed one is of a model a thousand times as large.
        *("--served-model-name", "small", "--kv-cache-memory-bytes", str(64 << 20)),
    ]
    with running(log, *command, VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_API_KEY=KEY) as process:
        process.url = f"http://127.0.0.1:{port}"
        yield process


def descendants(pid: int) -> set[int]:
    """Return the process ids below a process, zombies left out."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(status.parent.name)] = int(parent)
    found: set[int] = set()
    level = {pid}
    while level := {child for child, parent in parents.items() if parent in level}:
        found |= level
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs, zombies left out."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
