"""What a run sends after each failure, and whom it blames. A fake stands in for the client: no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteNonFiniteError,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.client import Client, TooMuchAtOnceError
from qwen3_rag.backends.remote.run import Run
from qwen3_rag.backends.remote.servers import Dialect, Request, Values
from qwen3_rag.backends.remote.sizes import AcceptedSizes
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.tokens import Prompt

URL = "http://host/endpoint"
REFUSAL = RemoteRefusalError("status 400: no", url=URL, status=400)
FAILURE = RemoteUnavailableError("status 500: oops", url=URL, status=500)


@dataclass(frozen=True)
class Sent:
    """What a run asked the client to send: texts, and how."""

    texts: str
    tokens: int
    divisible: bool
    max_attempts: int | None = None


LETTER = Sent("a", 1, divisible=False)
LETTER_ONCE = Sent("a", 1, divisible=False, max_attempts=1)


def whole(texts: str) -> Sent:
    """A request with all its tries. Each text is one character of two tokens."""
    return Sent(texts, 2 * len(texts), divisible=len(texts) > 1)


def part(texts: str) -> Sent:
    """A request that is sent once."""
    return Sent(texts, 2 * len(texts), divisible=len(texts) > 1, max_attempts=1)


class FakeClient:
    """Raises or returns what `answer` makes of each request; None is a right answer."""

    def __init__(self, answer: Callable[[Sent], Exception | None]) -> None:
        self.sent: list[Sent] = []
        self._answer = answer

    async def send(
        self, request: Request, *, started: float, tokens: int, divisible: bool, max_attempts: int | None = None
    ) -> Values:
        assert started > 0
        sent = Sent("".join(request.body["texts"]), tokens, divisible, max_attempts)
        self.sent.append(sent)
        await asyncio.sleep(0)
        failure = self._answer(sent)
        if failure is not None:
            raise failure
        return np.array([ord(text) for text in sent.texts], np.float32)


def _request(prompts: Sequence[Prompt]) -> Request:
    return Request({"texts": [_text(prompt) for prompt in prompts]}, lambda answer: cast("Values", answer))


def _text(prompt: Prompt) -> str:
    words = prompt.words
    return words.text if isinstance(words, EmbeddingWords) else words.document


def prompts_of(texts: Sequence[str]) -> list[Prompt]:
    """Prompts of two tokens; their indices in the caller's list begin at 100."""
    ids = np.array([7, 8], np.int32)
    return [Prompt(ids, EmbeddingWords("", text, is_query=True), 100 + i) for i, text in enumerate(texts)]


def run_of(
    client: FakeClient,
    prompts: list[Prompt],
    *,
    size: int,
    workers: int = 1,
    sizes: AcceptedSizes | None = None,
    make: Callable[[Sequence[Prompt]], Request] = _request,
) -> list[float]:
    """Run prompts in requests of `size`, and return the values."""
    dialect = Dialect(lambda base_url: base_url, make, 99, 99)
    requests = [list(range(i, min(i + size, len(prompts)))) for i in range(0, len(prompts), size)]

    async def scene() -> list[Any]:
        accepted = sizes if sizes is not None else AcceptedSizes(inputs=99, tokens=99)
        run = Run(cast("Client", client), dialect, accepted, prompts, requests)
        await asyncio.gather(*(run.work() for _ in range(workers)))
        return run.values().tolist()

    return asyncio.run(scene())


def numbers(texts: str) -> list[float]:
    return [float(ord(text)) for text in texts]


def test_a_request_that_is_refused_for_its_size_is_halved_and_the_size_learnt() -> None:
    client = FakeClient(lambda sent: REFUSAL if len(sent.texts) > 4 else None)
    sizes = AcceptedSizes(inputs=99, tokens=99)
    assert run_of(client, prompts_of("klmnopqrst"), size=10, sizes=sizes) == numbers("klmnopqrst")
    sent = ["klmnopqrst", "a", "klmno", "kl", "mno", "pq", "rst"]
    assert [s.texts for s in client.sent] == sent, "the second half was divided unsent"
    assert client.sent == [LETTER if text == "a" else whole(text) for text in sent]
    assert (sizes.max_inputs, sizes.max_tokens) == (3, 99)


def test_no_letter_is_sent_where_another_text_was_answered() -> None:
    client = FakeClient(lambda sent: REFUSAL if "x" in sent.texts else None)
    with pytest.raises(
        RemoteRefusalError, match="status 400: no - this is about text 103: it begins 'x'"
    ) as caught:
        run_of(client, prompts_of("klmxop"), size=2)
    assert client.sent == [whole("kl"), whole("mx"), whole("m"), whole("x")]
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 400, 103)
    assert type(caught.value) is RemoteRefusalError


def test_one_letter_tells_all_requests_that_are_refused_at_once() -> None:
    client = FakeClient(lambda sent: REFUSAL if len(sent.texts) > 1 else None)
    assert run_of(client, prompts_of("klmnopqr"), size=2, workers=4) == numbers("klmnopqr")
    assert client.sent.count(LETTER) == 1


def test_who_refuses_the_letter_too_refuses_everything() -> None:
    client = FakeClient(lambda _: REFUSAL)
    with pytest.raises(RemoteSetupError, match=r"status 400: no .*one letter") as caught:
        run_of(client, prompts_of("kl"), size=2)
    assert client.sent == [whole("kl"), LETTER]
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 400, None)


@pytest.mark.parametrize(
    "letter", [RemoteAnswerError("not JSON", url=URL, status=200), None], ids=["answered wrongly", "answered"]
)
def test_a_letter_that_is_answered_somehow_was_accepted(letter: Exception | None) -> None:
    client = FakeClient(lambda sent: letter if sent == LETTER else REFUSAL if len(sent.texts) > 2 else None)
    assert run_of(client, prompts_of("klmnopq"), size=7) == numbers("klmnopq")
    assert client.sent.count(LETTER) == 1


def test_a_refusal_is_no_texts_fault_while_the_server_cannot_be_asked_for_a_letter() -> None:
    client = FakeClient(lambda sent: FAILURE if sent == LETTER else REFUSAL)
    with pytest.raises(RemoteUnavailableError):
        run_of(client, prompts_of("kl"), size=2)
    assert client.sent == [whole("kl"), LETTER]


def test_a_text_on_which_the_server_fails_is_found_by_parts_that_are_sent_once() -> None:
    client = FakeClient(lambda sent: FAILURE if "x" in sent.texts else None)
    sizes = AcceptedSizes(inputs=99, tokens=99)
    with pytest.raises(RemoteRefusalError, match=r"oops .*one letter then .*text 102: it begins 'x'") as caught:
        run_of(client, prompts_of("klxnopqr"), size=8, sizes=sizes)
    assert client.sent == [
        whole("klxnopqr"),
        LETTER_ONCE,
        part("klxn"),
        LETTER_ONCE,
        part("kl"),
        part("xn"),
        LETTER_ONCE,
        whole("x"),
        LETTER_ONCE,
    ]
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 500, 102)
    assert not isinstance(caught.value, RemoteSetupError)
    assert sizes.max_inputs == 99, "it was not its size"


def test_a_server_that_fails_on_the_letter_too_is_at_fault() -> None:
    client = FakeClient(lambda _: FAILURE)
    with pytest.raises(RemoteUnavailableError):
        run_of(client, prompts_of("klmn"), size=4)
    assert client.sent == [whole("klmn"), LETTER_ONCE]


@pytest.mark.parametrize("letter", [FAILURE, REFUSAL])
def test_a_part_that_fails_with_the_letter_gets_all_its_tries_again(letter: Exception) -> None:
    outcomes = iter([FAILURE, None, FAILURE, letter, None, FAILURE, None, None, None])
    client = FakeClient(lambda _: next(outcomes))
    assert run_of(client, prompts_of("klmn"), size=4) == numbers("klmn")
    assert client.sent == [
        *(whole("klmn"), LETTER_ONCE),
        *(part("kl"), LETTER_ONCE, whole("kl")),
        *(part("mn"), LETTER_ONCE, whole("m"), whole("n")),
    ]


@pytest.mark.parametrize("status", [502, 503, 504, None])
def test_a_server_that_is_not_there_is_not_asked_for_a_letter(status: int | None) -> None:
    client = FakeClient(lambda _: RemoteUnavailableError("gone", url=URL, status=status))
    with pytest.raises(RemoteUnavailableError, match="gone"):
        run_of(client, prompts_of("kl"), size=2)
    assert client.sent == [whole("kl")]


def test_what_is_too_much_at_once_is_sent_in_halves_and_teaches_no_size() -> None:
    client = FakeClient(lambda sent: TooMuchAtOnceError() if len(sent.texts) > 2 else None)
    sizes = AcceptedSizes(inputs=99, tokens=99)
    assert run_of(client, prompts_of("klmn"), size=4, sizes=sizes) == numbers("klmn")
    assert client.sent == [whole("klmn"), whole("kl"), whole("mn")]
    assert (sizes.max_inputs, sizes.max_tokens) == (99, 99)


def test_a_number_that_is_not_finite_is_located_in_the_callers_list() -> None:
    failure = RemoteNonFiniteError("value 1 is NaN", url=URL, status=200, position=1)
    client = FakeClient(lambda sent: failure if sent.texts == "m" else None)
    with pytest.raises(RemoteNonFiniteError, match=r"about text 103: it is empty, .* has 2 tokens") as caught:
        run_of(client, prompts_of(["k", "l", "m", ""]), size=2)
    assert (caught.value.url, caught.value.status, caught.value.position) == (URL, 200, 103)


@pytest.mark.parametrize(
    ("given", "letter"),
    [
        (EmbeddingWords("Query:", "text", is_query=True), EmbeddingWords("", "a", is_query=False)),
        (RerankingWords("Find recipes", "query", "text"), RerankingWords(DEFAULT_INSTRUCTION, "a", "a")),
    ],
)
def test_a_letter_is_the_least_that_a_server_of_this_kind_can_be_asked_for(
    given: EmbeddingWords | RerankingWords, letter: EmbeddingWords | RerankingWords
) -> None:
    made: list[Prompt] = []

    def make(prompts: Sequence[Prompt]) -> Request:
        made.extend(prompts)
        return _request(prompts)

    client = FakeClient(lambda sent: REFUSAL if sent.texts == "text" else None)
    prompt = Prompt(np.array([5, 6, 9], np.int32), given)
    with pytest.raises(RemoteRefusalError, match="it begins 'text'"):
        run_of(client, [prompt], size=1, make=make)
    assert [(p.token_ids.tolist(), p.words) for p in made] == [([5, 6, 9], given), ([9], letter)]
