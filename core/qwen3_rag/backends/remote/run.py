"""One run of prompts: which requests are divided, and whether a failure is a text's fault or the server's."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qwen3_rag.backends.remote.client import Client, TooMuchAtOnceError
from qwen3_rag.backends.remote.errors import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.servers import Dialect, Values
from qwen3_rag.backends.remote.sizes import AcceptedSizes
from qwen3_rag.backends.remote.splitting import halves
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.tokens import Prompt

_SERVER_FAILED: Final = 500
"""HTTP 500: the server failed while processing, perhaps on a particular text. 502-504 say nothing about a text;
if one crashed the server, resending parts would crash it again."""

_SHOWN: Final = 40
"""Characters of a text that an error quotes, enough to recognise it. Chosen, not tuned."""


@dataclass
class _Refused:
    """A request that was refused and is sent in halves."""

    inputs: int
    tokens: int
    accepted_halves: int = 0


class Run:
    """The prompts of one run, and the values computed so far.

    Args:
        client: sends requests.
        dialect: builds them.
        sizes: what servers accept, learnt by all runs.
        prompts: all of the run's.
        requests: indices of the prompts of each request.
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect,
        sizes: AcceptedSizes,
        prompts: Sequence[Prompt],
        requests: Sequence[list[int]],
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._sizes = sizes
        self._prompts = prompts
        self._waiting = deque(requests)
        self._started = time.monotonic()
        self._values: dict[int, Any] = {}
        self._refused: dict[tuple[int, ...], _Refused] = {}
        """Indices of each half that is not answered yet -> the request that it is a half of."""
        self._probe_was_accepted = False
        """Whether a request for one letter was."""
        self._suspects: set[int] = set()
        """Indices of the prompts of requests that got 500 while a request for one letter was accepted."""
        self._probing = asyncio.Lock()
        """At most one such request at a time."""

    async def work(self) -> None:
        """Send waiting requests one by one until none is left. Several workers share a run."""
        try:
            while self._waiting:
                await self._compute(self._waiting.popleft())
        except BaseException:
            # The other workers will be cancelled, but `asyncio.wait_for`, up to Python 3.11, can lose a
            # cancellation. Without requests they end all the same.
            self._waiting.clear()
            raise

    async def _compute(self, indices: list[int]) -> None:
        """Compute some prompts by one request; divide it if it is too large or refused."""
        prompts = [self._prompts[index] for index in indices]
        tokens = self._tokens(indices)
        if not self._sizes.allow(len(indices), tokens):  # learnt after the run was divided into requests
            self._divide(indices)
            return
        try:
            values = await self._client.send(
                self._dialect.request(prompts),
                started=self._started,
                tokens=tokens,
                divisible=len(prompts) > 1,
                max_attempts=1 if self._is_sent_once(indices) else None,
            )
        except TooMuchAtOnceError:
            self._divide(indices)
        except RemoteNonFiniteError as error:
            position = error.position
            assert position is not None, "the client always knows which input it was"
            raise self._located(error, indices[position]) from None
        except RemoteSetupError:
            raise
        except RemoteRefusalError as error:
            await self._handle_refusal(error, indices)
        except RemoteUnavailableError as error:
            await self._handle_failure(error, indices)
        else:
            self._values.update(zip(indices, values, strict=True))
            self._note_accepted(indices, tokens)

    def _is_sent_once(self, indices: list[int]) -> bool:
        """Whether a request is part of one on which the server failed: dividing it is its next retry."""
        return len(indices) > 1 and indices[0] in self._suspects

    def _tokens(self, indices: list[int]) -> int:
        return sum(len(self._prompts[index].token_ids) for index in indices)

    def _divide(self, indices: list[int]) -> None:
        self._waiting.extendleft(reversed(halves(indices)))

    def _divide_refused(self, indices: list[int]) -> None:
        """Divide a request, and learn of its size if both halves are accepted as they are."""
        self._divide(indices)
        refused = _Refused(len(indices), self._tokens(indices))
        self._refused.update({tuple(half): refused for half in halves(indices)})

    def _note_accepted(self, indices: list[int], tokens: int) -> None:
        self._sizes.note_accepted(len(indices), tokens)
        refused = self._refused.pop(tuple(indices), None)
        if refused is not None:
            refused.accepted_halves += 1
            if refused.accepted_halves == 2:
                self._sizes.note_refused(refused.inputs, refused.tokens)

    async def _handle_refusal(self, refusal: RemoteRefusalError, indices: list[int]) -> None:
        """Divide a refused request if the server accepts others; else the server is at fault, not a text.

        Raises:
            RemoteRefusalError: it is of one text, which the error names.
            RemoteSetupError: the server refuses every request.
        """
        if not await self._accepts_another(indices[0]):
            raise RemoteSetupError(
                f"{refusal} - and so was a request for one letter, so it is not about a text",
                url=refusal.url,
                status=refusal.status,
            )
        if len(indices) == 1:
            raise self._located(refusal, indices[0])
        self._divide_refused(indices)

    async def _handle_failure(self, failure: RemoteUnavailableError, indices: list[int]) -> None:
        """Divide a request on which the server fails (500) if it answers others; else the server is at fault.

        Raises:
            RemoteRefusalError: it is of one text, which the error names.
            RemoteUnavailableError: the server fails on other requests too, or cannot be reached.
        """
        if failure.status != _SERVER_FAILED or not await self._accepts_another(indices[0], afresh=True):
            if not self._is_sent_once(indices):
                raise failure
            self._suspects.difference_update(indices)
            self._waiting.appendleft(indices)
            return
        if len(indices) == 1:
            refusal = RemoteRefusalError(
                f"{failure} - though it answered a request for one letter then",
                url=failure.url,
                status=failure.status,
            )
            raise self._located(refusal, indices[0])
        self._suspects.update(indices)
        self._divide(indices)

    async def _accepts_another(self, index: int, *, afresh: bool = False) -> bool:
        """Whether the server accepts requests other than a text's. If it has not yet, one letter is sent.

        Args:
            index: of the text.
            afresh: send one letter in any case, without retries: the server may have begun to fail.
        """
        async with self._probing:
            if not afresh and (self._values or self._probe_was_accepted):
                return True
            probe = _probe_for(self._prompts[index])
            try:
                await self._client.send(
                    self._dialect.request([probe]),
                    started=self._started,
                    tokens=1,
                    divisible=False,
                    max_attempts=1 if afresh else None,
                )
            except RemoteRefusalError:
                return False
            except RemoteUnavailableError:
                if afresh:
                    return False
                raise
            except RemoteAnswerError:
                pass  # It was accepted, whatever the answer holds.
            self._probe_was_accepted = True
            return True

    def values(self) -> Values:
        """Return all values in the prompts' order."""
        return np.array([self._values[index] for index in range(len(self._prompts))], dtype=np.float32)

    def _located(self, error: RemoteError, index: int) -> RemoteError:
        """Return the error with the text's index and first characters."""
        prompt = self._prompts[index]
        words = prompt.words
        text = words.text if isinstance(words, EmbeddingWords) else words.document
        begins = f"begins {text[:_SHOWN]!r}" if text else "is empty"
        return type(error)(
            f"{error} - this is about text {prompt.index}: it {begins}, and its prompt has "
            f"{len(prompt.token_ids)} tokens",
            url=error.url,
            status=error.status,
            position=prompt.index,
        )


def _probe_for(prompt: Prompt) -> Prompt:
    """Return a one-letter prompt of the same kind: the least that a server can be asked for."""
    words: EmbeddingWords | RerankingWords = EmbeddingWords("", "a", is_query=False)
    if isinstance(prompt.words, RerankingWords):
        words = RerankingWords(DEFAULT_INSTRUCTION, "a", "a")
    return Prompt(prompt.token_ids[-1:], words)
