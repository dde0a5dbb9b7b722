"""Sizes: runs are divided into requests within the limits, which are learnt from what is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from qwen3_rag.backends.remote.sizes import AcceptedSizes
from qwen3_rag.backends.remote.splitting import halves, split


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
