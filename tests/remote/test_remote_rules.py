"""Retrying, resting, splitting and options, without sockets."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3_rag import ConfigurationError, Embedder, NonFiniteOutputError, Reranker
from qwen3_rag.backends.remote import RemoteOptions, RemoteRefusalError, RemoteTimeoutError, errors
from qwen3_rag.backends.remote.failover import Hosts
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from qwen3_rag.backends.remote.options import parse_options
from qwen3_rag.backends.remote.retry import is_worth_retrying, may_be_one_input, parse_retry_after, pause
from qwen3_rag.backends.remote.servers import Setup, dialect_of
from qwen3_rag.backends.remote.servers.answers import log_odds
from qwen3_rag.backends.remote.sizes import AcceptedSizes
from qwen3_rag.backends.remote.splitting import halves, split
from qwen3_rag.models import ModelKind
from qwen3_rag.ranking import yes_probability

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=timezone.utc)
URL = "http://localhost:8000"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_overload_and_failures_are_tried_again(status: int) -> None:
    assert is_worth_retrying(status)
    assert not may_be_one_input(status)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 413, 422, 424, 499, 501, 505])
def test_refusals_are_final(status: int) -> None:
    assert not is_worth_retrying(status)
    assert may_be_one_input(status) == (status in {400, 413, 422, 424})


def test_pauses_grow_are_bounded_and_jitter_over_their_whole_length() -> None:
    longest = [pause(failures, chance=1.0) for failures in range(1, 10)]
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(longest) == 20.0 == pause(10_000, chance=1.0)
    assert pause(5, chance=0.0) == 0.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Wed, 01 Jul 2026 12:00:07 -0000", 7.0),
        ("Wed, 01 Jul 2026 14:00:07 +0200", 7.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("nan", None),
        ("1.2.3", None),
        ("\u00b2", None),
        ("9" * 400, math.inf),
        ("Wed, 01 Jul 2026 12:00:07 +9999999999999", None),
        ("Wed, 01 Jul 99999999999999999999 12:00:07 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now=NOW) == seconds


def test_a_failing_host_rests_and_is_tried_again_by_one_request() -> None:
    hosts = Hosts(["a", "b"])
    sick = hosts.choose(0.0, {})
    hosts.note_failure(sick, 0.0, retry_after=None)
    well = {hosts.choose(1.0, {}).base_url for _ in range(5)}
    assert well == {"ab".replace(sick.base_url, "")}
    tried_again = hosts.choose(2.5, {})
    tried_again = tried_again if tried_again is sick else hosts.choose(2.5, {})
    assert tried_again is sick
    sick.in_flight = 1
    assert all(hosts.choose(2.5, {}) is not sick for _ in range(5)), "one request at a time until it succeeds"
    sick.in_flight = 0
    hosts.note_success(sick)
    assert sick in [hosts.choose(2.5, {}) for _ in range(2)]


def test_a_failing_host_is_left_alone_however_busy_the_other_is() -> None:
    hosts = Hosts(["a", "b"])
    sick, well = hosts.choose(0.0, {}), hosts.choose(0.0, {})
    well.in_flight = 9
    hosts.note_failure(sick, 0.0, retry_after=None)
    assert hosts.choose(1.9, {}) is well
    assert hosts.choose(2.0, {}) is sick
    sick.in_flight = 1
    assert hosts.choose(2.0, {}) is well, "one request at a time until it succeeds"
    hosts.note_success(sick)
    assert hosts.choose(2.0, {}) is sick


def test_rests_double_and_are_bounded() -> None:
    hosts = Hosts(["a"])
    host = hosts.choose(0.0, {})
    rests = []
    for _ in range(40):
        started = host.backoff_until
        hosts.note_failure(host, started, retry_after=None)
        hosts.note_failure(host, started + 0.1, retry_after=None)  # was under way at the same time
        rests.append(host.backoff_until - started)
    assert rests[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(rests) == 60.0


def test_a_host_that_asks_for_quiet_is_the_last_choice() -> None:
    hosts = Hosts(["a", "b"])
    asking = hosts.choose(0.0, {})
    hosts.note_failure(asking, 0.0, retry_after=30.0)
    other = hosts.choose(0.0, {})
    hosts.note_failure(other, 0.0, retry_after=None)
    assert {hosts.choose(t, {}).base_url for t in (0.1, 5.0, 29.0)} == {other.base_url}


def test_a_host_is_shut_for_a_minute_at_most_and_opened_by_a_success() -> None:
    hosts = Hosts(["a"])
    host = hosts.choose(0.0, {})
    hosts.note_failure(host, 0.0, retry_after=86400.0)
    assert host.retry_after_until == 60.0
    hosts.note_success(host)
    assert host.retry_after_until == 0.0


def test_a_host_that_asked_for_quiet_is_as_good_as_others_once_that_is_over() -> None:
    hosts = Hosts(["a", "b"])
    asking, other = hosts.choose(0.0, {}), hosts.choose(0.0, {})
    other.in_flight = 1
    hosts.note_failure(asking, 0.0, retry_after=10.0)
    assert hosts.choose(9.5, {}) is other
    assert hosts.choose(20.0, {}) is asking
    assert hosts.choose(20.0, {asking.base_url: 1}) is other
    assert hosts.choose(20.0, {}, excluded=[asking.base_url]) is other


def test_another_host_is_there_if_it_is_well_or_no_more_than_busy() -> None:
    hosts = Hosts(["a", "b"])
    one, other = hosts.choose(0.0, {}), hosts.choose(0.0, {})
    assert hosts.has_other(0.0, [one.base_url])
    assert not hosts.has_other(0.0, [one.base_url, other.base_url])
    hosts.note_failure(other, 0.0, retry_after=None)
    assert hosts.has_other(1.0, [other.base_url])
    assert not hosts.has_other(1.0, [one.base_url])
    hosts.note_failure(other, 1.0, retry_after=None, is_busy=True)
    assert hosts.has_other(1.0, [one.base_url])


def test_a_request_that_was_asked_to_wait_for_long_goes_to_another_host() -> None:
    hosts = Hosts(["a", "b"])
    asking = hosts.choose(0.0, {})
    other = hosts.choose(0.0, {})
    failed = {asking.base_url: 1, other.base_url: 2}
    assert hosts.choose(100.0, failed, {asking.base_url: 86400.0}) is other
    assert hosts.choose(100.0, failed) is asking


def test_quick_answers_bring_more_and_larger_requests_and_slow_ones_fewer() -> None:
    limiter = AdaptiveLimiter(hosts=2, connections=4, tokens=1000, timeout=60.0)
    assert limiter.request_limit == 2
    for _ in range(5):
        limiter.note_answer(1.0, 1000)
    assert (limiter.request_limit, limiter.token_limit) == (4, 1000)
    limiter.note_answer(20.0, 1000)
    assert limiter.request_limit == 4, "neither quick nor slow: as it is"
    limiter.note_answer(40.0, 1000)
    assert limiter.request_limit == 3
    limiter.note_timeout(800)
    assert (limiter.request_limit, limiter.token_limit) == (1, 400)
    limiter.note_answer(1.0, 30)
    assert (limiter.request_limit, limiter.token_limit) == (2, 400), "it tells nothing of larger ones"
    limiter.note_answer(1.0, 300)
    assert (limiter.request_limit, limiter.token_limit) == (3, 600)
    limiter.note_answer(1.0, 5000)
    assert (limiter.request_limit, limiter.token_limit) == (4, 1000)
    for _ in range(20):
        limiter.note_timeout(1)
    assert (limiter.request_limit, limiter.token_limit) == (1, 1)


def test_turns_are_given_in_order_and_none_is_lost() -> None:
    async def scene() -> list[int]:
        limiter = AdaptiveLimiter(hosts=1, connections=2, tokens=1, timeout=60.0)
        came: list[int] = []

        async def ask(number: int) -> None:
            assert await limiter.acquire(60.0)
            came.append(number)
            limiter.release()

        assert await limiter.acquire(60.0)
        assert not await limiter.acquire(0.01), "there is one turn at first"
        cancelled = asyncio.ensure_future(ask(0))
        asked = [asyncio.ensure_future(ask(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        limiter.release()  # gives the turn to the one that is cancelled before it can take it
        cancelled.cancel()
        await asyncio.gather(*asked)
        return came

    assert asyncio.run(scene()) == [1, 2, 3]


def test_the_least_busy_host_is_chosen_and_equal_ones_take_turns() -> None:
    hosts = Hosts(["a", "b", "c"])
    assert Counter(hosts.choose(0.0, {}).base_url for _ in range(9)) == {"a": 3, "b": 3, "c": 3}
    busy = hosts.choose(0.0, {})
    busy.in_flight = 2
    assert all(hosts.choose(0.0, {}) is not busy for _ in range(4))


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=60),
    st.integers(1, 10),
    st.integers(1, 60),
)
def test_each_prompt_is_in_one_request_within_the_limits(
    prompts: list[tuple[int, int]], max_inputs: int, max_tokens: int
) -> None:
    lengths, groups = [length for length, _ in prompts], [group for _, group in prompts]
    requests = split(lengths, groups, max_inputs=max_inputs, max_tokens=max_tokens)
    assert sorted(number for request in requests for number in request) == list(range(len(prompts)))
    for request in requests:
        assert 1 <= len(request) <= max_inputs
        assert sum(lengths[number] for number in request) <= max_tokens or len(request) == 1
        assert len({groups[number] for number in request}) == 1
        assert request == sorted(request)


def test_requests_are_as_large_as_they_may_be() -> None:
    assert split([4] * 5, [0] * 5, max_inputs=9, max_tokens=8) == [[0, 1], [2, 3], [4]]
    assert split([1] * 5, [0] * 5, max_inputs=2, max_tokens=99) == [[0, 1], [2, 3], [4]]
    assert split([1] * 4, [0, 1] * 2, max_inputs=9, max_tokens=2) == [[0, 2], [1, 3]]


def test_a_size_that_is_refused_in_one_and_accepted_in_two_lowers_the_limit_that_explains_it() -> None:
    sizes = AcceptedSizes(inputs=64, tokens=1000)
    sizes.note_accepted(16, 100)
    sizes.note_accepted(16, 300)
    sizes.note_refused(32, 400)
    assert (sizes.max_inputs, sizes.max_tokens) == (16, 1000), "inputs are what servers commonly limit"
    sizes.note_refused(16, 301)
    assert (sizes.max_inputs, sizes.max_tokens) == (16, 300), "16 inputs were accepted, 301 tokens were not"
    assert sizes.allow(16, 300)
    assert not sizes.allow(17, 300)
    assert not sizes.allow(16, 301)
    assert sizes.allow(1, 9999), "a single text goes at any length"


def test_what_was_accepted_before_was_not_refused_for_its_size() -> None:
    sizes = AcceptedSizes(inputs=64, tokens=1000)
    sizes.note_accepted(20, 500)
    sizes.note_refused(20, 500)
    sizes.note_refused(4, 8)
    assert (sizes.max_inputs, sizes.max_tokens) == (64, 1000)


def test_a_limit_that_was_learnt_is_not_raised() -> None:
    sizes = AcceptedSizes(inputs=64, tokens=1000)
    sizes.note_accepted(8, 80)
    sizes.note_refused(16, 160)
    sizes.note_accepted(32, 320)  # was under way
    sizes.note_refused(64, 640)
    assert sizes.max_inputs == 8


@given(st.lists(st.integers(), min_size=2, max_size=9))
def test_halves_are_smaller_and_complete(numbers: list[int]) -> None:
    left, right = halves(numbers)
    assert left + right == numbers
    assert left
    assert right


@given(st.floats(0, 1, width=32))
def test_probabilities_survive_their_log_odds(probability: float) -> None:
    p = np.array([probability], np.float32)
    assert np.isfinite(log_odds(p)).all()
    np.testing.assert_allclose(yes_probability(log_odds(p)), p, rtol=2e-5, atol=1e-44)


def test_log_odds_keep_the_order_of_probabilities() -> None:
    ends = np.array([0.0, 1e-45, 1e-38, 1e-7, 0.5, 1 - 2**-24, 1.0], np.float32)
    assert (np.diff(log_odds(ends)) > 0).all()
    assert yes_probability(log_odds(ends[[0, -1]])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, "needs 'server'"),
        ({}, "needs 'server'"),
        ({"server": "vllm"}, "needs 'base_url'"),
        ({"server": "ollama", "base_url": URL}, "one of .*'vllm'.*got 'ollama'"),
        ({"server": "vllm", "base_url": URL, "z": 1, "a": 2, "b": 3}, "unknown names 'a', 'b', 'z'; there are"),
        ({"server": "vllm", "base_url": URL, "timout": 3}, "unknown names 'timout'; there are: .*timeout"),
        ({"server": "vllm", "base_url": []}, "a URL or a list of URLs"),
        ({"server": "vllm", "base_url": 8000}, "a URL or a list of URLs"),
        ({"server": "vllm", "base_url": [None]}, "must be a string"),
        ({"server": "vllm", "base_url": "localhost:8000"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://host:port"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://host:0"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://:8000"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "ftp://host"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": URL + "/v1#key"}, "of host localhost holds a user name, a password or"),
        ({"server": "vllm", "base_url": "http://a..b"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://é_é.example"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://xn--zzzzzzz99999.x"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://\u3002:80"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://[v1.x]:1"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": "http://xn--:1"}, "a scheme, a host"),
        ({"server": "vllm", "base_url": URL, "path": "/a\tb"}, "path .* free of control characters"),
        ({"server": "vllm", "base_url": URL, "path": "/a\ud800b"}, "path .* free of control characters"),
        ({"server": "vllm", "base_url": URL + "\n"}, "no space, line break .* at place 21"),
        ({"server": "vllm", "base_url": URL + "\u200b"}, "no space, line break .* at place 21"),
        ({"server": "vllm", "base_url": "http://ho st"}, "no space, line break .* at place 9"),
        ({"server": "vllm", "base_url": URL, "timeout": 0}, "timeout .* above 0, got 0"),
        ({"server": "vllm", "base_url": URL, "deadline": float("nan")}, "deadline"),
        ({"server": "vllm", "base_url": URL, "deadline": math.inf}, "deadline .* got inf"),
        ({"server": "vllm", "base_url": URL, "deadline": 30}, "deadline .* more than timeout, 60 s.* got 30"),
        ({"server": "vllm", "base_url": URL, "timeout": 300}, "deadline .* more than timeout, 300 s.* got 300"),
        ({"server": "vllm", "base_url": URL, "timeout": True}, "timeout .* got True"),
        ({"server": "vllm", "base_url": URL, "timeout": "3"}, "timeout .* got '3'"),
        ({"server": "vllm", "base_url": URL, "max_retries": -1}, "max_retries .* 0 or more, got -1"),
        ({"server": "vllm", "base_url": URL, "max_retries": None}, "max_retries .* 0 or more, got None"),
        ({"server": "vllm", "base_url": URL, "max_connections": 0}, "max_connections .* 1 or more"),
        ({"server": "vllm", "base_url": URL, "max_connections": True}, "max_connections .* got True"),
        ({"server": "vllm", "base_url": URL, "max_inputs_per_request": 1.5}, "a whole number"),
        ({"server": "vllm", "base_url": URL, "served_model": ""}, "served_model"),
        ({"server": "vllm", "base_url": URL, "served_model": 7}, "served_model .* got 'int'"),
        ({"server": "vllm", "base_url": URL, "path": "embed"}, 'starts with "/"'),
        ({"server": "tei", "base_url": URL, "template": "both"}, "template .*'client', 'server'"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(options: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_options(options)


def test_the_least_that_options_allow_is_accepted() -> None:
    ones = dict.fromkeys(("max_connections", "max_inputs_per_request", "max_tokens_per_request"), 1)
    options = parse_options({"server": "vllm", "base_url": URL, "max_retries": 0, **ones})
    assert (options.max_retries, options.max_connections) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("reranking", {"server": "openai"}, "'openai' is not for reranking; these are: 'vllm'"),
        (
            "embedding",
            {"server": "cohere"},
            "'cohere' is not for embedding; these are: 'vllm', 'tei', 'openai', 'dashscope'$",
        ),
        ("reranking", {"server": "tei"}, "needs template"),
        ("reranking", {"server": "jina"}, "needs template"),
        (
            "reranking",
            {"server": "vllm", "template": "client"},
            "template means nothing here: vLLM gets token ids",
        ),
        ("reranking", {"server": "dashscope", "template": "server"}, "applies its own template"),
        ("embedding", {"server": "tei", "template": "client"}, "template means nothing here"),
    ],
)
def test_options_that_do_not_fit_the_server_are_refused(kind: ModelKind, options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        dialect_of(Setup(RemoteOptions(base_url=(URL,), **options), "m", 64, len), kind)


ENDPOINTS = [
    ("vllm", "embedding", "http://h:1", "http://h:1/v1/embeddings"),
    ("vllm", "embedding", "http://h:1/v1/", "http://h:1/v1/embeddings"),
    ("vllm", "embedding", "http://h:1/team/a", "http://h:1/team/a/v1/embeddings"),
    ("vllm", "reranking", "http://h:1/v1", "http://h:1/classify"),
    ("tei", "embedding", "http://h:1", "http://h:1/embed"),
    ("tei", "reranking", "http://h:1/", "http://h:1/rerank"),
    ("openai", "embedding", "http://h:1", "http://h:1/v1/embeddings"),
    ("openai", "embedding", "https://h/compatible-mode/v1", "https://h/compatible-mode/v1/embeddings"),
    ("openai", "embedding", "https://h/v1beta/openai/", "https://h/v1beta/openai/embeddings"),
    ("cohere", "reranking", "https://h", "https://h/v2/rerank"),
    ("cohere", "reranking", "https://h/v1", "https://h/v1/rerank"),
    ("jina", "reranking", "https://h", "https://h/v1/rerank"),
    (
        "dashscope",
        "embedding",
        "https://h",
        "https://h/api/v1/services/embeddings/text-embedding/text-embedding",
    ),
    ("dashscope", "reranking", "https://h/api/v1", "https://h/api/v1/services/rerank/text-rerank/text-rerank"),
]


@pytest.mark.parametrize(("server", "kind", "base_url", "url"), ENDPOINTS)
def test_base_urls_lead_to_endpoints(server: Any, kind: ModelKind, base_url: str, url: str) -> None:
    template = "client" if kind == "reranking" and server in ("tei", "cohere", "jina") else None
    options = parse_options({"server": server, "base_url": base_url, "template": template})
    assert dialect_of(Setup(options, "m", 64, len), kind).endpoint(options.base_url[0]) == url


def test_the_path_can_be_chosen() -> None:
    options = parse_options({"server": "openai", "base_url": "http://h/v1", "path": "/embed/me"})
    dialect = dialect_of(Setup(options, "m", 64, len), "embedding")
    assert dialect.endpoint("http://h/v1") == "http://h/v1/embed/me"


def test_a_server_that_cannot_be_told_the_instruction_says_so(reranking_folder: Path) -> None:
    kwargs = {"server": "tei", "base_url": URL, "template": "server"}
    with (
        Reranker(str(reranking_folder), backend="remote", model_kwargs=kwargs) as reranker,
        pytest.raises(ConfigurationError, match="always uses the default instruction"),
    ):
        reranker.score("q", ["d"], instruction="Find recipes")


def test_defaults_of_the_core_are_left_to_the_server(embedding_folder: Path) -> None:
    kwargs = {"server": "vllm", "base_url": URL}
    with Embedder(str(embedding_folder), backend="remote", device="cuda:7", model_kwargs=kwargs) as embedder:
        backend = embedder.load().backend
    assert backend is not None
    assert backend.concurrency == 16
    assert backend.token_budget == 16384 * 8 // 9, "one request's worth: a run holds up what comes later"


def test_a_list_of_devices_is_answered_with_a_list_of_servers() -> None:
    with pytest.raises(ConfigurationError, match=r"no device of this machine.*cuda:1.*\"base_url\": \["):
        Embedder("m", backend="remote", device=["cuda:0", "cuda:1"], model_kwargs={"base_url": URL})


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.startswith("Remote")])
def test_errors_travel_between_processes(name: str) -> None:
    error = getattr(errors, name)("what was seen", url=URL, status=418, position=3)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.url, copy.status, copy.position) == ("what was seen", URL, 418, 3)
    assert type(copy) is type(error)


def test_a_batch_is_taken_apart_only_for_errors_that_may_be_about_one_text() -> None:
    concern_all = {name for name, kind in vars(errors).items() if getattr(kind, "concerns_every_prompt", False)}
    assert concern_all == {"RemoteUnavailableError", "RemoteTimeoutError", "RemoteSetupError"}
    assert issubclass(errors.RemoteSetupError, RemoteRefusalError)


def test_errors_can_be_caught_by_their_builtin() -> None:
    assert issubclass(errors.RemoteUnavailableError, ConnectionError)
    assert issubclass(RemoteTimeoutError, TimeoutError)
    assert issubclass(errors.RemoteNonFiniteError, NonFiniteOutputError)
    assert issubclass(RemoteRefusalError, RuntimeError)
