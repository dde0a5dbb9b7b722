"""A checkpoint's description and tokenizer, opened once for all calls of a component."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from qwen3_rag.checkpoint import Checkpoint, check_max_tokens, open_checkpoint, resolve_local_model
from qwen3_rag.plugins import check_backend
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.workers import WorkerThread, resolve


@dataclass(frozen=True)
class Source:
    """An opened checkpoint without weights: description and tokenizer.

    Attributes:
        settings: those that it was opened by, as `resolve_local_model` returns them.
        version: of its files, likewise.
        checkpoint, tokenizer: what was read.
    """

    settings: EngineSettings
    version: object
    checkpoint: Checkpoint
    tokenizer: PromptTokenizer


def open_source(settings: EngineSettings, *, max_tokens: int, parse_special_tokens: bool) -> Source:
    """Open the checkpoint that settings name.

    Raises:
        CheckpointError, WrongModelKindError: see `open_checkpoint` and `PromptTokenizer`.
        ConfigurationError: there is no such backend, or `max_tokens` is more than the model's context.
        MissingExtraError: the backend's extra is not installed.
    """
    check_backend(settings.backend)  # before anything is downloaded
    resolved, version = resolve_local_model(settings)
    checkpoint = open_checkpoint(settings, weights=False)
    check_max_tokens(max_tokens, checkpoint)
    tokenizer = PromptTokenizer.from_folder(
        checkpoint.folder,
        parse_special_tokens=parse_special_tokens,
        breaks_special_strings=settings.breaks_special_strings,
    )
    if settings.kind == "reranking":
        tokenizer.check_reranking()
    return Source(resolved, version, checkpoint, tokenizer)


class Opening:
    """Opens when it is first asked to, in a daemon thread of its own: a hub may be slow, or never answer.

    So a caller can stop waiting, calls of other models go on, and the interpreter can exit.

    Args:
        run: opens, and does not keep whoever asks alive.
    """

    def __init__(self, run: Callable[[], Source]) -> None:
        self._run = run
        self._asked: Future[Source] | None = None
        self._lock = threading.Lock()

    def ask(self) -> Future[Source]:
        """Return the future of an attempt, the same to all who ask until it fails. It cannot be cancelled."""
        with self._lock:
            if self._asked is None or (self._asked.done() and self._asked.exception() is not None):
                asked: Future[Source] = Future()
                asked.set_running_or_notify_cancel()
                in_context = partial(contextvars.copy_context().run, resolve, asked, self._run)
                WorkerThread(in_context, "qwen3-rag-open").start()
                self._asked = asked  # not before: without its thread it would never be done
            return self._asked

    def renew_after_fork(self) -> None:
        """In a forked child: whoever held the lock, or was opening, stayed in the parent."""
        self._lock = threading.Lock()
        if self._asked is not None and not self._asked.done():
            self._asked = None
