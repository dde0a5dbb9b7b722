"""One run of prompts by several requests: which of them are divided, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
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
from qwen3_rag.backends.remote.splitting import halves
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.tokens import Prompt

_FAILED_INSIDE: Final = 500
"""Status of a server in which something failed, perhaps over a text. What 502, 503 and 504 tell of is no text's
fault; or a text ended the server, and parts of its request would end it again."""

_SHOWN: Final = 40
"""Characters by which an error makes a text recognisable."""


class Run:
    """The prompts of one run and the values that have come so far.

    Args:
        client: sends requests.
        dialect: makes them.
        prompts: all of the run.
        requests: numbers of the prompts that are to be sent together.
    """

    def __init__(
        self, client: Client, dialect: Dialect, prompts: Sequence[Prompt], requests: Sequence[list[int]]
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._prompts = prompts
        self._waiting = deque(requests)
        self._started = time.monotonic()
        self._found: dict[int, Any] = {}
        self._accepts_others = False
        """Whether a request for one letter was accepted."""
        self._suspects: set[int] = set()
        """Numbers of the prompts in requests that got 500 while a request for one letter was accepted."""
        self._asking = asyncio.Lock()
        """So that one such question is asked at a time."""

    async def work(self) -> None:
        """Send what waits, request by request. Several of these share a run."""
        try:
            while self._waiting:
                await self._compute(self._waiting.popleft())
        except BaseException:
            # For the workers beside this one: `asyncio.wait_for`, up to Python 3.11, can lose the
            # cancellation that is coming to them, and they would go on asking.
            self._waiting.clear()
            raise

    async def _compute(self, numbers: list[int]) -> None:
        """Compute some prompts by one request, or divide it when it is too large or refused."""
        prompts = [self._prompts[number] for number in numbers]
        try:
            values = await self._client.send(
                self._dialect.call(prompts),
                started=self._started,
                tokens=sum(len(prompt.token_ids) for prompt in prompts),
                divisible=len(prompts) > 1,
                tries=1 if self._is_sent_once(numbers) else None,
            )
        except TooMuchAtOnceError:
            self._divide(numbers)
        except RemoteNonFiniteError as error:
            place = error.position
            assert place is not None, "the client always knows which number was not finite"
            raise self._located(error, numbers[place]) from None
        except RemoteSetupError:
            raise
        except RemoteRefusalError as error:
            await self._judge(error, numbers)
        except RemoteUnavailableError as error:
            await self._judge_failure(error, numbers)
        else:
            self._found.update(zip(numbers, values, strict=True))

    def _is_sent_once(self, numbers: list[int]) -> bool:
        """Whether a request is part of one on which the server failed: dividing it further is another try."""
        return len(numbers) > 1 and numbers[0] in self._suspects

    def _divide(self, numbers: list[int]) -> None:
        self._waiting.extendleft(reversed(halves(numbers)))

    async def _judge(self, refusal: RemoteRefusalError, numbers: list[int]) -> None:
        """Find out whose fault a refusal is: that of its texts only if other requests are accepted.

        Raises:
            RemoteRefusalError: naming the one text that was refused.
            RemoteSetupError: the server refuses everything.
        """
        if not await self._accepts_another(numbers[0]):
            raise RemoteSetupError(
                f"{refusal} - and so was a request for one letter, so it is not about a text",
                url=refusal.url,
                status=refusal.status,
            )
        if len(numbers) == 1:
            raise self._located(refusal, numbers[0])
        self._divide(numbers)

    async def _judge_failure(self, failure: RemoteUnavailableError, numbers: list[int]) -> None:
        """Find out whether a server that keeps failing does so on one of a request's texts.

        Raises:
            RemoteRefusalError: naming the one text on which it fails.
            RemoteUnavailableError: it fails on everything, or cannot be reached.
        """
        if failure.status != _FAILED_INSIDE or not await self._accepts_another(numbers[0], afresh=True):
            if not self._is_sent_once(numbers):
                raise failure
            self._suspects.difference_update(numbers)
            self._waiting.appendleft(numbers)
            return
        if len(numbers) == 1:
            refusal = RemoteRefusalError(
                f"{failure} - though it answered a request for one letter then",
                url=failure.url,
                status=failure.status,
            )
            raise self._located(refusal, numbers[0])
        self._suspects.update(numbers)
        self._divide(numbers)

    async def _accepts_another(self, number: int, *, afresh: bool = False) -> bool:
        """Whether a request beside that of a text is answered. If there was none, ask for one letter.

        Args:
            number: of the text.
            afresh: ask in any case, once: a server that answered before may be failing now.
        """
        async with self._asking:
            if not afresh and (self._found or self._accepts_others):
                return True
            letter = _one_letter(self._prompts[number])
            try:
                await self._client.send(
                    self._dialect.call([letter]),
                    started=self._started,
                    tokens=1,
                    divisible=False,
                    tries=1 if afresh else None,
                )
            except RemoteRefusalError:
                return False
            except RemoteUnavailableError:
                if afresh:
                    return False
                raise
            except RemoteAnswerError:
                pass  # accepted, whatever it said
            self._accepts_others = True
            return True

    def values(self) -> Values:
        """Return all values in the prompts' order."""
        return np.array([self._found[number] for number in range(len(self._prompts))], dtype=np.float32)

    def _located(self, error: RemoteError, number: int) -> RemoteError:
        prompt = self._prompts[number]
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


def _one_letter(prompt: Prompt) -> Prompt:
    """Return the least that a server can be asked for, of the same kind."""
    words: EmbeddingWords | RerankingWords = EmbeddingWords("", "a", is_query=False)
    if isinstance(prompt.words, RerankingWords):
        words = RerankingWords(DEFAULT_INSTRUCTION, "a", "a")
    return Prompt(prompt.token_ids[-1:], words)
