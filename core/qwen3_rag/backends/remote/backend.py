"""The remote backend: runs prompts on one or several servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.event_loop import LoopThread
from qwen3_rag.backends.remote.client import Client
from qwen3_rag.backends.remote.keys import find_key
from qwen3_rag.backends.remote.options import parse_options
from qwen3_rag.backends.remote.run import Run
from qwen3_rag.backends.remote.servers import Dialect, Setup, Values, dialect_of
from qwen3_rag.backends.remote.sizes import AcceptedSizes
from qwen3_rag.backends.remote.splitting import split
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.plan import MAX_OVERFILL
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompt


def create(settings: EngineSettings) -> RemoteBackend:
    """Return a backend for the servers that `settings.model_kwargs` name. Entry point `remote`.

    Nothing is sent yet. `settings.model` names the checkpoint whose tokenizer and hidden size the server's
    model has; device, dtype and prefix sharing are up to the server.

    Raises:
        ConfigurationError: see `RemoteOptions` and docs/remote.md.
        CheckpointError: the tokenizer or config cannot be read.
    """
    options = parse_options(settings.loader_options)
    key = find_key(options)
    checkpoint = open_checkpoint(settings, weights=False)
    served = options.served_model if options.served_model is not None else settings.model
    count = partial(_count_tokens, checkpoint.folder)
    dialect = dialect_of(Setup(options, served, checkpoint.hidden_size, count), settings.kind)
    inputs, tokens = options.max_inputs_per_request, options.max_tokens_per_request
    max_tokens = tokens if tokens is not None else dialect.max_tokens
    return RemoteBackend(
        dialect,
        lambda: Client(options, dialect, key, max_tokens=max_tokens),
        max_inputs=inputs if inputs is not None else dialect.max_inputs,
        max_tokens=max_tokens,
        connections=options.max_connections,
        token_budget=settings.token_budget,
    )


class RemoteBackend:
    """A model at one or several servers.

    Args:
        dialect: what the servers speak.
        open_client: opens the client; called in the backend's event loop.
        max_inputs: most prompts of one request, and fewer once a server refuses so many.
        max_tokens: most tokens of one request, likewise.
        connections: most requests in flight.
        token_budget: tokens of one run; None for as many as fill one request even if a round is overfilled.
            Larger runs would delay calls that come later, and keep no more connections busy.

    Attributes:
        concurrency: most runs at once.
        token_budget: tokens that one run should have.
    """

    def __init__(
        self,
        dialect: Dialect,
        open_client: Callable[[], Client],
        *,
        max_inputs: int,
        max_tokens: int,
        connections: int,
        token_budget: int | None,
    ) -> None:
        self.concurrency = connections
        one_request = max(1, int(max_tokens / MAX_OVERFILL))
        self.token_budget = token_budget if token_budget is not None else one_request
        self._dialect = dialect
        self._sizes = AcceptedSizes(inputs=max_inputs, tokens=max_tokens)
        self._connections = connections
        self._loop = LoopThread("qwen3-rag-remote")
        try:
            self._client = self._loop.result_of(_opened(open_client))
        except BaseException:
            self._loop.close()
            raise

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts; see `run_while`."""
        return self.run_while(prompts, lambda: True)

    def run_while(self, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
        """Run prompts; see `StoppableBackend`. May be called from several threads at once.

        `computed` counts all tokens: servers do not report what their prefix caches saved.

        Raises:
            RemoteError: a server refused, could not be reached in time, or gave no right answer. If one prompt
                is at fault, `position` is its `index`, and the message tells it and quotes how its text begins.
            PromptTooLongError, ConfigurationError: a prompt cannot be sent as it is. Nothing was sent.
            RunAbandonedError: the run is not wanted any more; its requests are cancelled.
        """
        for prompt in prompts:
            self._dialect.check(prompt)
        computed = np.array([len(prompt.token_ids) for prompt in prompts], dtype=np.int64)
        if not prompts:
            return BackendOutput(np.zeros(0, dtype=np.float32), computed)
        return BackendOutput(self._loop.result_of(self._values(prompts), is_wanted=is_wanted), computed)

    def close(self) -> None:
        """Close the connections, and end the event loop's thread."""
        try:
            self._loop.result_of(self._client.close())
        finally:
            self._loop.close()

    async def _values(self, prompts: Sequence[Prompt]) -> Values:
        """Return the values of all prompts, from requests sent concurrently."""
        requests = split(
            [len(prompt.token_ids) for prompt in prompts],
            [self._dialect.group(prompt) for prompt in prompts],
            max_inputs=self._sizes.max_inputs,
            max_tokens=self._sizes.max_tokens,
        )
        run = Run(self._client, self._dialect, self._sizes, prompts, requests)
        # No more workers than connections: the client's limiter shares those among concurrent runs.
        await _all_or_none([run.work() for _ in range(min(len(requests), self._connections))])
        return run.values()


def _count_tokens(folder: Path, text: str) -> int:
    """Return the number of tokens of a text. Few dialects need it, so the tokenizer is read only here."""
    tokenizer = PromptTokenizer.from_folder(folder)
    encoded = tokenizer.encode_texts([text], prompt="", max_tokens=sys.maxsize, is_query=True)
    return len(encoded.token_ids[0]) - 1  # less the closing token of an embedding


async def _opened(open_client: Callable[[], Client]) -> Client:
    """Open a client within the loop that runs this."""
    return open_client()


async def _all_or_none(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; if one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
