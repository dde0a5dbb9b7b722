"""A text that a server will not take is named, and no other text or call suffers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder
from qwen3_rag.backends.remote import RemoteRefusalError, RemoteSetupError, RemoteUnavailableError
from server import Answer, Reply, Request, Server, dead_url, first
from workload import RIGHT, TEXTS, check

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("short_pauses")


def no_long_ones(request: Request) -> Reply:
    """A server's answer that refuses a whole request because of one text."""
    if any(len(ids) > 200 for ids in request.body["input"]):
        return Reply({"error": {"message": "too long for this server", "code": 400}}, status=400)
    return RIGHT(request)


TOO_LONG = "much too long " * 100


def test_a_refusal_of_everything_is_blamed_on_no_text(serve: Serve, embedder: Make) -> None:
    server = serve(lambda _: Reply({"error": {"message": "model not found"}}, 400))
    with pytest.raises(RemoteSetupError, match=r"model not found - .* not about a text") as caught:
        embedder(server.url).embed_documents(TEXTS)
    assert (caught.value.status, caught.value.position) == (400, None)
    assert len(server.requests) <= 2 * 16, "one more for each thread that asks"


def test_a_text_that_is_refused_alone_is_named_only_if_others_pass(serve: Serve, embedder: Make) -> None:
    with pytest.raises(RemoteRefusalError, match="about text 0: it begins 'much too") as caught:
        embedder(serve(no_long_ones).url).embed_documents([TOO_LONG])
    assert caught.value.position == 0
    never = serve(lambda _: Reply({}, 422))
    with pytest.raises(RemoteSetupError) as caught:
        embedder(never.url).embed_documents([TOO_LONG])
    assert caught.value.position is None
    assert len(never.requests) == 2


def test_one_bad_text_is_named(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    server = serve(no_long_ones)
    made = embedder(server.url)
    with pytest.raises(
        RemoteRefusalError, match=r"too long for this server.*text 41: it begins 'much too .* 1401 tokens"
    ) as caught:
        made.embed_documents([*TEXTS[:41], TOO_LONG, *TEXTS[42:]])
    assert (caught.value.status, caught.value.position) == (400, 41)
    assert len(server.requests) <= 1 + 2 * 6 + 16, "one more for each thread, to see that others pass"
    check(made, expected)


def test_a_bad_text_of_a_long_list_is_named_by_its_place_in_the_list(serve: Serve, embedder: Make) -> None:
    """The model gets a call in pieces of 512 and in an order of its own."""
    texts = [f"{i} " for i in range(700)]
    with pytest.raises(RemoteRefusalError, match="about text 600: it begins") as caught:
        embedder(serve(no_long_ones).url).embed_documents([*texts[:600], TOO_LONG, *texts[601:]])
    assert caught.value.position == 600


def test_a_request_too_large_for_the_server_is_halved(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    def answer(request: Request) -> Reply:
        if len(request.body["input"]) > 9:
            return Reply({"error": "batch size > maximum allowed batch size 9"}, status=413)
        return RIGHT(request)

    check(embedder(serve(answer).url), expected)


def check_that_one_call_fails_alone(embedder: Embedder, expected: np.ndarray) -> None:
    """Each text has a call of its own, and they are merged; one is too long for the server."""

    async def calls() -> list[Any]:
        texts = [[text] for text in TEXTS]
        texts[17] = [TOO_LONG]
        return await asyncio.gather(*(embedder.aembed_documents(t) for t in texts), return_exceptions=True)

    results = asyncio.run(calls())
    assert [i for i, result in enumerate(results) if isinstance(result, Exception)] == [17]
    assert isinstance(results[17], RemoteRefusalError)
    assert results[17].position == 0
    got = np.concatenate([results[i] for i in range(len(TEXTS)) if i != 17])
    np.testing.assert_allclose(got, np.delete(expected, 17, axis=0), rtol=0, atol=1e-6)


def test_a_bad_text_fails_its_own_call_only(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    check_that_one_call_fails_alone(embedder(serve(no_long_ones).url), expected)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_a_base_url_that_refuses_everything_puts_the_blame_on_no_text(
    texts: list[str], serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    wrong, right = serve(lambda _: Reply({"message": "this replica was started wrongly"}, 400)), serve(RIGHT)
    made = embedder([wrong.url, right.url], max_inputs_per_request=4)
    for _ in range(3):
        np.testing.assert_allclose(made.embed_documents(texts), expected[: len(texts)], rtol=0, atol=1e-6)
    assert len(right.requests) == 3 * -(-len(texts) // 4), "what another answers as it is was divided"


@pytest.mark.parametrize(
    "fault", [Reply({}, 429), Reply({}, 503, {"Retry-After": "0.01"}), Reply({}, delay=5.0)]
)
def test_nor_while_the_other_is_busy(fault: Reply, serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    wrong = serve(lambda _: Reply({"message": "this replica was started wrongly"}, 400))
    right = serve(first([fault], RIGHT))
    check(embedder([wrong.url, right.url], max_inputs_per_request=4, timeout=0.5), expected)


def test_a_text_that_is_refused_by_one_of_three_is_not_named(serve: Serve, embedder: Make) -> None:
    """Two have a lower limit. A request of several texts is divided when two refused it, whoever they are."""
    servers = [serve(no_long_ones), serve(no_long_ones), serve(RIGHT)]
    made = embedder([server.url for server in servers], max_inputs_per_request=8)
    assert made.embed_documents([*TEXTS[:41], TOO_LONG, *TEXTS[42:]]).shape == (60, 64)


def test_all_base_urls_are_asked_for_a_text_before_it_is_named(serve: Serve, embedder: Make) -> None:
    servers = [serve(no_long_ones) for _ in range(4)]
    made = embedder([server.url for server in servers])
    with pytest.raises(RemoteRefusalError, match=r"too long for this server.*about text 41"):
        made.embed_documents([*TEXTS[:41], TOO_LONG, *TEXTS[42:]])
    alone = [[len(request.body["input"][0]) for request in server.requests] for server in servers]
    assert all(max(lengths) > 200 for lengths in alone)


def test_a_request_too_large_for_all_base_urls_is_sent_to_two_of_them_and_halved(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    servers = [serve(lambda r: RIGHT(r) if len(r.body["input"]) <= 30 else Reply({}, 413)) for _ in range(4)]
    check(embedder([server.url for server in servers]), expected)
    sizes = sorted(len(request.body["input"]) for server in servers for request in server.requests)
    assert sizes == [1, 30, 30, 60, 60], "the one is a letter"


def test_a_refusal_counts_where_no_other_base_url_answers(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    server = serve(no_long_ones)
    with dead_url() as dead:
        made = embedder([server.url, dead])
        check(made, expected)
        with pytest.raises(RemoteRefusalError, match=r"too long for this server.*about text 41"):
            made.embed_documents([*TEXTS[:41], TOO_LONG, *TEXTS[42:]])


def fails_on_long_ones(request: Request) -> Reply:
    """An error escapes from the server's code over one text."""
    if any(len(ids) > 200 for ids in request.body["input"]):
        return Reply({"error": {"message": "list index out of range"}}, status=500)
    return RIGHT(request)


def test_a_text_on_which_the_server_fails_is_named(serve: Serve, embedder: Make, expected: np.ndarray) -> None:
    server = serve(fails_on_long_ones)
    made = embedder(server.url, max_retries=2, max_connections=1)
    with pytest.raises(
        RemoteRefusalError, match=r"out of range.*one letter then.*text 41: it begins 'much too"
    ) as caught:
        made.embed_documents([*TEXTS[:41], TOO_LONG, *TEXTS[42:]])
    assert (caught.value.status, caught.value.position) == (500, 41)
    assert not isinstance(caught.value, RemoteUnavailableError)
    # Tries of the whole and of the text, two parts for each of six divisions, a letter for each that failed.
    assert len(server.requests) <= 3 + 3 + 2 * 6 + 7
    check(made, expected)


def test_a_text_on_which_the_server_fails_fails_its_own_call_only(
    serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    check_that_one_call_fails_alone(embedder(serve(fails_on_long_ones).url, max_retries=1), expected)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_not_there_is_sent_no_parts(status: int, serve: Serve, embedder: Make) -> None:
    server = serve(lambda request: Reply({}, status) if len(request.body["input"]) > 1 else RIGHT(request))
    with pytest.raises(RemoteUnavailableError):
        embedder(server.url, max_retries=2).embed_documents(TEXTS)
    assert len(server.requests) == 3


def test_a_server_that_stops_working_is_sent_no_parts(serve: Serve, embedder: Make) -> None:
    works = iter([True])
    server = serve(lambda request: RIGHT(request) if next(works, False) else Reply({}, 500))
    made = embedder(server.url, max_retries=2, max_connections=1, max_inputs_per_request=20)
    with pytest.raises(RemoteUnavailableError):
        made.embed_documents(TEXTS)
    assert len(server.requests) == 1 + 3 + 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_recovers_while_a_request_is_divided_answers_all_of_it(
    status: int, serve: Serve, embedder: Make, expected: np.ndarray
) -> None:
    """Three tries fail, then the letter passes, and then the first request of each size fails once more."""
    seen: set[int] = set()

    def answer(request: Request) -> Reply:
        size = len(request.body["input"])
        is_letter = len(request.body["input"][0]) == 1
        if not is_letter and size < len(TEXTS) and size not in seen:
            seen.add(size)
            return Reply({"error": "still starting"}, status)
        return RIGHT(request)

    server = serve(first([Reply({"error": "oops"}, 500)] * 3, answer))
    check(embedder(server.url, max_retries=2, max_connections=1), expected)
    assert min(seen) == (1 if status == 500 else 30)
