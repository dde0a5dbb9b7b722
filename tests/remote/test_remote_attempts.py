"""What is kept of a request's failed attempts, and when there is no further one. Without sockets."""

from __future__ import annotations

import pytest
from qwen3_rag.backends.remote.attempts import Answer, Attempts, Failure

BROKEN = Failure("the connection broke")
BUSY = Failure("status 429: slow down", 429)
LOADING = Failure("status 503: loading", 503, is_loading=True)
REFUSED = Failure("status 400: too long", 400)
SLOW = Failure("no whole answer within 60 s", is_slow=True)
UNTRUSTED = Failure("self-signed certificate", is_untrusted=True)


@pytest.mark.parametrize(
    ("failure", "is_busy", "is_worth_retrying", "may_be_one_input"),
    [
        (BROKEN, False, True, False),
        (BUSY, True, True, False),
        (LOADING, True, True, False),
        (SLOW, True, True, False),
        (Failure("status 503", 503), False, True, False),
        (REFUSED, False, False, True),
        (Failure("status 401", 401), False, False, False),
    ],
)
def test_a_failure_tells_whether_the_server_is_busy_and_what_may_help(
    failure: Failure, is_busy: bool, is_worth_retrying: bool, may_be_one_input: bool
) -> None:
    assert failure.is_busy == is_busy
    assert failure.is_worth_retrying == is_worth_retrying
    assert failure.may_be_one_input == may_be_one_input


def test_an_answers_repr_hides_what_servers_may_echo() -> None:
    assert "a private text" not in repr(Answer(b"a private text"))


def test_attempts_end_with_so_many_that_count() -> None:
    attempts = Attempts(2, hosts=1, now=5.0)
    assert (attempts.began, attempts.last_failed, attempts.last) == (5.0, 5.0, "no try yet")
    attempts.note("a", BROKEN, 6.0, counts=True)
    attempts.note("a", BUSY, 7.0, counts=False)
    attempts.note_refusal("b", REFUSED, 8.0)
    assert not attempts.are_exhausted, "neither a busy server nor a refusal counts"
    assert (attempts.began, attempts.last_failed) == (5.0, 8.0)
    assert attempts.last == "try 3: status 400: too long"
    assert attempts.failures == {"a": 2, "b": 1}
    assert attempts.refusals == {"b": REFUSED}
    attempts.note("a", BROKEN, 9.0, counts=True)
    assert attempts.are_exhausted


def test_attempts_end_where_no_certificate_is_trusted() -> None:
    attempts = Attempts(9, hosts=2, now=0.0)
    for _ in range(3):
        attempts.note("a", UNTRUSTED, 1.0, counts=True)
    attempts.note("b", BROKEN, 1.0, counts=True)
    assert not attempts.are_exhausted, "the other may answer"
    attempts.note("b", UNTRUSTED, 1.0, counts=True)
    assert attempts.are_exhausted


def test_a_server_that_is_merely_busy_is_not_spent_and_may_say_when_to_come_back() -> None:
    attempts = Attempts(9, hosts=4, now=0.0)
    attempts.note("a", BUSY, 1.0, counts=True)
    attempts.note("a", SLOW, 1.0, counts=True)
    attempts.note("b", LOADING, 1.0, counts=False)
    attempts.note("c", Failure("status 500", 500, retry_after=3.0), 2.0, counts=True)
    attempts.note_refusal("d", REFUSED, 4.0)
    assert attempts.spent == {"c", "d"}
    assert attempts.retry_after_until == {"c": 5.0}
