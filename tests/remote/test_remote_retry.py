"""Which failures are tried again, after what pause, and how their errors can be caught. Without sockets."""

from __future__ import annotations

import math
import pickle
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from qwen3_rag import NonFiniteOutputError
from qwen3_rag.backends.remote import RemoteRefusalError, RemoteTimeoutError, errors
from qwen3_rag.backends.remote.retry import is_worth_retrying, may_be_one_input, parse_retry_after, pause

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
