"""Forks, signals and the end of the interpreter, wherever they meet an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
from qwen3_rag import Embedder
old = Embedder(sys.argv[1], dtype="float32", device="cpu").load()
old.embed_documents(["parent"])  # so that the thread that computes is there, and stays in the parent
if os.fork() == 0:
    new = Embedder(sys.argv[1], dtype="float32", device="cpu").load()
    old.close()
    old.metrics
    os._exit(0 if new.embed_documents(["child"]).shape == (1, 64) else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""

FORK_WHILE_OPENING = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
from qwen3_rag import Embedder, opening
began, go_on = threading.Event(), threading.Event()
real = opening.open_checkpoint
def slow(*args, **options):
    began.set()
    go_on.wait(60)
    return real(*args, **options)
opening.open_checkpoint = slow
embedder = Embedder(sys.argv[1], dtype="float32", device="cpu")
threading.Thread(target=embedder.embed_documents, args=(["parent"],)).start()
began.wait(60)
with embedder._opening._lock:  # as another thread may hold it
    if os.fork() == 0:
        signal.alarm(60)
        go_on.set()
        os._exit(0 if embedder.embed_documents(["child"]).shape == (1, 64) else 1)
go_on.set()
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""

SLOW_TO_CLOSE = """
import time
from qwen3_rag import Embedder, engines
import numpy as np
from qwen3_rag.backends.base import BackendOutput
class Backend:
    token_budget, concurrency = 100, 1
    def run(self, prompts):
        return BackendOutput(np.ones((len(prompts), 256), np.float32), np.ones(len(prompts), np.int64))
    def close(self):
        time.sleep(0.5)
        print("closed", flush=True)
engines.load_backend = lambda settings: Backend()
def use():
    Embedder("demo").embed_documents(["a"])
use()
"""

CHILD_OF_MULTIPROCESSING = """
from qwen3_rag import Embedder, engines
def load(settings):
    import multiprocessing  # as a backend does that is imported when it is used
    context = multiprocessing.get_context("fork")
    class Backend:
        token_budget, concurrency = 100, 1
        def __init__(self):
            self.go_on = context.Event()
            self.child = context.Process(target=self.go_on.wait)
            self.child.start()
        def close(self):
            self.go_on.set()
            self.child.join()
            print("closed", flush=True)
    return Backend()
engines.load_backend = load
embedder = Embedder("demo").load()
"""

EXIT_WHILE_LOADING = """
import sys, threading, time
from qwen3_rag import Embedder, engines
loading = threading.Event()
def slow(settings):
    loading.set()
    time.sleep(300)
engines.load_backend = slow
embedder = Embedder(sys.argv[1], device="cpu")
threading.Thread(target=embedder.load, daemon=True).start()
loading.wait(60)
"""

CLOSED_BY_A_HANDLER = """
import contextlib, os, signal, sys, threading, time
from qwen3_rag import Embedder, EngineClosedError, engines
from qwen3_rag.metrics import Tally
import numpy as np
from qwen3_rag.backends.base import BackendOutput
def say(what):  # in one piece: two threads do
    os.write(1, f"{what}\\n".encode())
class Backend:
    token_budget, concurrency = 100, 1
    def run(self, prompts):
        time.sleep(0.3)  # while the caller begins to wait
        return BackendOutput(np.ones((len(prompts), 256), np.float32), np.ones(len(prompts), np.int64))
    def close(self):
        say("closed")
engines.load_backend = lambda settings: Backend()
embedder = Embedder("demo", max_wait_ms=float(sys.argv[2])).load()
signal.signal(signal.SIGINT, lambda *_: embedder.close())
wait, snapshot = threading.Condition.wait, Tally.snapshot
def interrupt():
    threading.Condition.wait, Tally.snapshot = wait, snapshot
    signal.raise_signal(signal.SIGINT)
    say("handled")
def interrupted_wait(condition, timeout=None):  # its lock is held, as for some moments of the real one
    if threading.current_thread() is threading.main_thread():
        interrupt()
    return wait(condition, timeout)
def interrupted_snapshot(*args, **numbers):  # under the engine's lock
    interrupt()
    return snapshot(*args, **numbers)
if sys.argv[1] == "metrics":
    Tally.snapshot = interrupted_snapshot
    embedder.metrics
else:
    embedder.embed_documents(["first"])  # so that tqdm's thread is there: starting it waits too
    threading.Condition.wait = interrupted_wait
    with contextlib.suppress(EngineClosedError):
        embedder.embed_documents(["a"])
say("returned")
"""

CLOSED_WHILE_ENGINES_ARE_LOCKED = """
import signal, threading, time
import numpy as np
from qwen3_rag import Embedder, EngineClosedError, engines
from qwen3_rag.backends.base import BackendOutput
running, locked = threading.Event(), threading.Event()
class Backend:
    token_budget, concurrency = 100, 1
    def run(self, prompts):
        running.set()
        locked.wait(60)
        left.clear()  # nobody closed it: its finaliser gives its engine back
        return BackendOutput(np.ones((len(prompts), 256), np.float32), np.ones(len(prompts), np.int64))
    def close(self):
        pass
engines.load_backend = lambda settings: Backend()
left = [Embedder("demo", max_queued=2).load()]
embedder = Embedder("demo").load()
threading.Thread(target=embedder.embed_documents, args=(["a"],)).start()
running.wait(60)
new_engine = engines._new_engine
def interrupted(settings):
    locked.set()
    time.sleep(0.3)  # while the finaliser begins to wait for the lock
    signal.raise_signal(signal.SIGINT)
    return new_engine(settings)
engines._new_engine = interrupted
signal.signal(signal.SIGINT, lambda *_: embedder.close())
Embedder("demo", max_queued=3).load()
print("returned")
"""


LOADED_AFTER_THE_MAIN_THREAD = """
import os, sys, threading
from qwen3_rag import Embedder
def work():
    threading.main_thread().join()
    before = dict(os.environ)
    print(Embedder(sys.argv[1], dtype="float32", device="cpu").embed_documents(["a"]).shape)
    print(dict(os.environ) == before)
threading.Thread(target=work).start()
"""


@pytest.mark.parametrize(
    ("call", "max_wait_ms"),
    [("metrics", "0"), ("embed", "0"), ("embed", "1000")],
    ids=["metrics are read", "a call is computed", "a call waits for company"],
)
def test_a_signal_s_handler_may_close_a_component_wherever_it_comes(call: str, max_wait_ms: str) -> None:
    command = [sys.executable, "-c", CLOSED_BY_A_HANDLER, call, max_wait_ms]
    ended = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert sorted(ended.stdout.split()) == ["closed", "handled", "returned"], ended.stderr


def test_a_signal_s_handler_may_close_a_component_while_another_gets_its_engine() -> None:
    command = [sys.executable, "-c", CLOSED_WHILE_ENGINES_ARE_LOCKED]
    ended = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert ended.stdout == "returned\n", ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("script", [FORK, FORK_WHILE_OPENING], ids=["new engine", "locked"])
def test_a_forked_child_can_make_its_own_and_close_what_it_inherited(
    script: str, embedding_checkpoint: Path
) -> None:
    command = [sys.executable, "-c", script, str(embedding_checkpoint)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("script", [SLOW_TO_CLOSE, CHILD_OF_MULTIPROCESSING], ids=["collected", "never closed"])
def test_the_interpreter_ends_when_each_model_is_closed(script: str) -> None:
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert ended.stdout == "closed\n", ended.stderr


def test_a_thread_that_outlives_the_main_thread_can_load_a_model(embedding_checkpoint: Path) -> None:
    command = [sys.executable, "-c", LOADED_AFTER_THE_MAIN_THREAD, str(embedding_checkpoint)]
    ended = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert ended.stdout == "(1, 64)\nTrue\n", ended.stderr


def test_the_interpreter_does_not_wait_for_a_load_to_end(embedding_checkpoint: Path) -> None:
    command = [sys.executable, "-c", EXIT_WHILE_LOADING, str(embedding_checkpoint)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0
