"""Parsing of answers: what has another form than was asked for is refused, and said. Without sockets."""

from __future__ import annotations

import base64
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3_rag.backends.remote.servers.answers import (
    NotFiniteError,
    UnusableAnswerError,
    check_count,
    check_ids_were_computed,
    in_order,
    log_odds,
    member,
    only_class,
    scores,
    vectors,
)
from qwen3_rag.ranking import yes_probability


def test_members_are_found_at_any_depth() -> None:
    assert member({"a": {"b": 7}}, "a", "b") == 7
    assert member({"a": None}, "a") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"x": 1}, "the answer has no 'a': an object with 'x'"),
        ({}, "the answer has no 'a': an object with nothing"),
        ({str(i): 0 for i in range(9)}, "the answer has no 'a': an object with '0', '1', '2', '3', '4', '5'"),
        ({"a": {"b": {}}}, "a.b has no 'c': an object with nothing"),
        ({"a": []}, "a has no 'b': a list of 0"),
        ({"a": ["b"]}, "a has no 'b': a list of 1 (str, ...)"),
        ({"a": "b"}, "a has no 'b': a str"),
        ({"a": None}, "a has no 'b': null"),
        (["a"], "the answer has no 'a': a list of 1 (str, ...)"),
    ],
)
def test_an_absent_member_is_told_with_what_stands_in_its_place(answer: Any, said: str) -> None:
    with pytest.raises(UnusableAnswerError, match=f"^{re.escape(said)}$"):
        member(answer, "a", "b", "c")


def _items(*indices: Any) -> list[dict[str, Any]]:
    return [{"at": index, "value": f"v{index}"} for index in indices]


@pytest.mark.parametrize(
    ("items", "values"),
    [
        (_items(2, 0, 1), ["v0", "v1", "v2"]),
        ([{"value": "a"}, {"value": "b"}, {"value": "c"}], ["a", "b", "c"]),
        ([{"value": "a", "at": None}, {"value": "b"}, {"value": "c"}], ["a", "b", "c"]),
        ([*_items(2, 1), {"value": "v0"}], ["v0", "v1", "v2"]),
        ([*_items(2), {"value": "v0", "at": None}, *_items(1)], ["v0", "v1", "v2"]),
    ],
)
def test_values_are_put_in_the_order_of_their_indices_if_they_have_any(items: Any, values: list[str]) -> None:
    assert in_order(items, 3, index="at", value="value") == values


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ({"value": 1}, "expected a list of objects, got an object with 'value'"),
        (None, "expected a list of objects, got null"),
        ([[1], [2], [3]], "expected a list of objects, got a list of 3"),
        ([*_items(0, 1), 7], "expected a list of objects"),
        ([{"value": "a"}, {"value": "b"}], "2 values came back for 3 inputs"),
        (_items(0, 1, 2, 3), "4 values came back for 3 inputs"),
        ([{"at": 0}, {"at": 1}, {"at": 2}], "has no 'value'"),
        ([*_items(0, 1), {"value": "c"}], "'at' must number the 3 inputs from 0, each once"),
        (_items(1, 2, 3), "each once, got [1, 2, 3]"),
        (_items(0, 1, 1), "each once, got [0, 1, 1]"),
        (_items(0, 1, -1), "each once, got [0, 1, -1]"),
        (_items(0, True, 2), "each once, got [0, 'bool', 2]"),
        (_items(0, 1.0, 2), "each once, got [0, 'float', 2]"),
        (_items(0, "1", 2), "each once, got [0, 'str', 2]"),
        ([*_items(1), {"value": "b"}, {"value": "c"}], "each once, got [1, 0, 0]"),
    ],
)
def test_items_that_do_not_number_the_inputs_are_refused(items: Any, said: str) -> None:
    with pytest.raises(UnusableAnswerError, match=re.escape(said)):
        in_order(items, 3, index="at", value="value")


@pytest.mark.parametrize("item", [{"value": 1}, {"value": 1, "at": None}])
def test_what_is_sorted_and_not_numbered_is_refused_for_several_inputs(item: Any) -> None:
    assert in_order([item], 1, index="at", value="value", best_first=True) == [1]
    assert in_order([item] * 2, 2, index="at", value="value") == [1, 1]
    with pytest.raises(UnusableAnswerError, match="no result has 'at', and such servers sort results"):
        in_order([item] * 2, 2, index="at", value="value", best_first=True)


@pytest.mark.parametrize(
    ("rows", "said"), [({"0": []}, "a list of 2, got an object"), ([[1]], "1 values came")]
)
def test_a_list_of_another_length_or_no_list_is_refused(rows: Any, said: str) -> None:
    check_count([[1], [2]], 2)
    with pytest.raises(UnusableAnswerError, match=said):
        check_count(rows, 2)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({"usage": {"prompt_tokens": 6}}, "computed 6 .*, so it cuts inputs"),
        ({"usage": {"prompt_tokens": 1}}, "computed 1 .*, so it cuts inputs"),
        ({"usage": {"prompt_tokens": 7}}, None),
        ({"usage": {"prompt_tokens": 8}}, "computed 8 .*, so it appends tokens"),
        ({"usage": {"prompt_tokens": 0}}, None),
        ({"usage": {"prompt_tokens": True}}, None),
        ({"usage": {"prompt_tokens": 6.0}}, None),
        ({"usage": {}}, None),
        ({"usage": [6]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_only_another_count_of_tokens_proves_that_others_were_computed(answer: Any, seen: str | None) -> None:
    if seen is None:
        check_ids_were_computed(answer, 7)
    else:
        with pytest.raises(UnusableAnswerError, match=f"was sent 7 tokens and {seen}"):
            check_ids_were_computed(answer, 7)


@pytest.mark.parametrize(
    ("probs", "said"), [([0.1, 0.9], "^2 classes"), ([], "^0 classes"), (0.5, "^no classes")]
)
def test_a_reranker_has_one_class(probs: Any, said: str) -> None:
    assert only_class([0.5]) == 0.5
    with pytest.raises(UnusableAnswerError, match=said):
        only_class(probs)


@pytest.mark.parametrize(
    "row", [[0.25, -3.0], [1, 2], base64.b64encode(np.array([0.25, -3], "<f4").tobytes()).decode()], ids=str
)
def test_vectors_come_as_numbers_or_in_base64(row: Any) -> None:
    made = vectors([row, [1.0, 1.0]], 2)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(
        made, [[0.25, -3.0] if isinstance(row, str) or row[1] < 0 else [1, 2], [1, 1]]
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1.0], "vectors have length 1, where the model named to us has 2"),
        ([1.0, 2.0, 3.0], "length 3"),
        ([], "length 0"),
        ([0, 0.0], "the vector of input 1 is all zeros"),
        ([True, False], "expected a flat list of numbers"),
        (["1", "2"], "expected a flat list of numbers, got a list of 2 (str, ...)"),
        ([[1.0, 2.0]], "expected a flat list of numbers"),
        ([[1.0], 2.0], "expected a flat list of numbers"),
        ([10**400, 1], "expected a flat list of numbers"),
        ({"0": 1.0}, "expected a list of numbers, got an object"),
        (None, "expected a list of numbers, got null"),
        ("AACAPwAAgD8=\n", "a vector, 13 characters, is not valid base64"),
        ("AACAPw", "6 characters, is not valid base64"),
        ("AAC\u00e1", "4 characters, is not valid base64"),
        ("AACA", "a base64 vector has 3 bytes"),
        ("", "length 0"),
    ],
    ids=str,
)
def test_what_is_no_vector_is_refused(row: Any, said: str) -> None:
    with pytest.raises(UnusableAnswerError, match=re.escape(said)):
        vectors([[1.0, 0.0], row], 2)


@pytest.mark.parametrize(
    "row",
    [
        [None, 1.0],
        [1.0, None],
        [math.nan, 1.0],
        [1.0, -math.inf],
        [1e300, 1.0],
        base64.b64encode(np.array([1, math.nan], "<f4").tobytes()).decode(),
    ],
    ids=str,
)
def test_what_is_not_finite_names_its_input(row: Any) -> None:
    with pytest.raises(NotFiniteError, match="the value of input 2 of the request is NaN") as caught:
        vectors([[1.0, 1.0], [1.0, 1.0], row], 2)
    assert caught.value.position == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf, 1e300])
def test_a_score_that_is_not_finite_names_its_input(score: Any) -> None:
    for are_probabilities in (True, False):
        with pytest.raises(NotFiniteError) as caught:
            scores([0.5, 0.5, score], are_probabilities=are_probabilities)
        assert caught.value.position == 2


@pytest.mark.parametrize(("score", "said"), [(1.5, "input 1 is 1.5,"), (-0.5, "input 1 is -0.5,")])
def test_scores_out_of_range_are_no_probabilities_but_may_be_log_odds(score: float, said: str) -> None:
    found = scores([0.5, score], are_probabilities=False)
    assert (found.dtype, found.tolist()) == (np.float32, [0.5, score])
    with pytest.raises(UnusableAnswerError, match=said):
        scores([0.5, score], are_probabilities=True)


@pytest.mark.filterwarnings("error")
def test_the_ends_of_the_range_are_probabilities() -> None:
    assert np.isfinite(scores([0, 1], are_probabilities=True)).all()


@given(st.floats(0, 1, width=32))
def test_probabilities_survive_their_log_odds(probability: float) -> None:
    p = np.array([probability], np.float32)
    assert np.isfinite(log_odds(p)).all()
    np.testing.assert_allclose(yes_probability(log_odds(p)), p, rtol=2e-5, atol=1e-44)


def test_log_odds_keep_the_order_of_probabilities() -> None:
    ends = np.array([0.0, 1e-45, 1e-38, 1e-7, 0.5, 1 - 2**-24, 1.0], np.float32)
    assert (np.diff(log_odds(ends)) > 0).all()
    assert yes_probability(log_odds(ends[[0, -1]])).tolist() == [0.0, 1.0]
