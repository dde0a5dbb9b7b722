"""Which host gets the next request: who failed rests, and who asked for quiet has it. Without sockets."""

from __future__ import annotations

from collections import Counter

from qwen3_rag.backends.remote.failover import Hosts


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


def test_the_least_busy_host_is_chosen_and_equal_ones_take_turns() -> None:
    hosts = Hosts(["a", "b", "c"])
    assert Counter(hosts.choose(0.0, {}).base_url for _ in range(9)) == {"a": 3, "b": 3, "c": 3}
    busy = hosts.choose(0.0, {})
    busy.in_flight = 2
    assert all(hosts.choose(0.0, {}) is not busy for _ in range(4))
