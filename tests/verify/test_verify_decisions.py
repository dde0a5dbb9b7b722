"""What numbers alone decide: how near a fault must come, and how far right answers may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qwen3_rag.ranking import yes_probability
from qwen3_rag.verification.diagnosis import (
    batch_dependence,
    diagnose,
    diagnose_limit,
    lost_end,
    out_of_order,
)
from qwen3_rag.verification.faults import FAULTS
from qwen3_rag.verification.matching import Floats, Hypothesis, limits_below, permutation
from qwen3_rag.verification.reranking_faults import scaling

RIGHT = np.array([0.1, 0.5, 0.9], np.float32)


def faults(*offsets: float, names: tuple[str, ...] = ("newline-lost",)) -> Any:
    """What a server with the fault answers: the right numbers and so much more."""
    return lambda: [Hypothesis(names, RIGHT + np.float32(offset)) for offset in offsets]


def named(answered: Floats, faulty: Any, tolerance: float = 0.03) -> list[str]:
    found = diagnose(answered, RIGHT, faulty, tolerance=tolerance, measure="score")
    return [one.fault for one in found]


def test_a_fault_is_named_if_it_is_three_times_nearer_than_the_right_numbers() -> None:
    answered = RIGHT + np.float32(0.02)
    assert named(answered, faults(0.026)) == ["newline-lost"]
    assert named(answered, faults(0.028)) == []


def test_a_fault_beyond_the_tolerance_is_not_named_however_wrong_the_numbers_are() -> None:
    answered = RIGHT + np.float32(0.2)
    assert named(answered, faults(0.17 + 1e-4)) == ["newline-lost"]
    assert named(answered, faults(0.16)) == ["unexplained"]


@pytest.mark.parametrize(
    ("rest", "by_right", "names"),
    [
        (0.011, 0.02, ["newline-lost"]),
        (0.0125, 0.02, []),
        (0.04, 0.2, ["unexplained"]),
    ],
)
def test_nearness_is_of_all_texts_by_the_mean_square_and_the_tolerance_of_each(
    rest: float, by_right: float, names: list[str]
) -> None:
    answered = RIGHT + np.float32(by_right)
    fault = answered - np.array([0, 0, rest], np.float32)
    assert named(answered, lambda: [Hypothesis(("newline-lost",), fault)]) == names


@pytest.mark.parametrize(("other", "names"), [(0.0254, ["newline-lost"]), (0.0257, ["suffix-cut", "log-odds"])])
def test_of_about_equally_near_explanations_the_one_with_fewest_faults_is_named(
    other: float, names: list[str]
) -> None:
    answered = RIGHT + np.float32(0.02)
    two, one = faults(0.025, names=("suffix-cut", "log-odds")), faults(other)
    assert named(answered, lambda: [*two(), *one()]) == names


def test_rounding_does_not_make_an_explanation_with_more_faults_the_nearest() -> None:
    answered = RIGHT + np.float32(0.02)
    two, one = faults(0.02, names=("suffix-cut", "log-odds")), faults(0.02 + 5e-7)
    assert named(answered, lambda: [*two(), *one()]) == ["newline-lost"]


@pytest.mark.parametrize(("off", "names"), [(0.003, ["newline-lost"]), (0.0035, ["constant"])])
def test_a_fault_must_be_three_times_nearer_than_a_constant_too(off: float, names: list[str]) -> None:
    answered = np.array([0.29, 0.3, 0.31], np.float32)  # the root mean square from their middle is 0.0082
    faulty = [Hypothesis(("newline-lost",), answered + np.array([off, off, 0], np.float32))]
    assert named(answered, lambda: faulty) == names


def test_scores_that_spread_beyond_the_tolerance_are_no_constant_and_right_ones_neither() -> None:
    assert named(np.array([0.46, 0.5, 0.53], np.float32), faults(0.3)) == ["unexplained"]
    assert named(np.array([0.48, 0.5, 0.53], np.float32), faults(0.3)) == ["constant"]
    undecided = np.array([0.5, 0.501, 0.499], np.float32)
    found = diagnose(undecided + np.float32(0.001), undecided, faults(0.3), tolerance=0.03, measure="score")
    assert not found, "a model that answers nearly the same by right"


def test_below_the_rounding_of_float32_nothing_is_computed() -> None:
    def never() -> list[Hypothesis]:
        raise AssertionError("faults are looked for")

    assert named(RIGHT + np.float32(0.9e-4), never) == []


def test_what_no_fault_explains_is_told_with_how_many_are_off_and_what_is_nearest() -> None:
    answered = np.array([0.1, 0.52, 0.94], np.float32)
    (found,) = diagnose(answered, RIGHT, faults(0.2, 0.1), tolerance=0.03, measure="score")
    assert found.fault == "unexplained"
    assert "1 of 3 short texts are off, by up to 0.04; nearest, at 0.1, is newline-lost" in found.what


def test_a_distance_of_unit_vectors_is_told_as_a_cosine_too() -> None:
    right = np.array([[1, 0], [0, 1]], np.float32)
    answered = np.array([[0.8, 0.6], [0, 1]], np.float32)
    faulty = [Hypothesis(("lower-cased",), np.array([[0.8, 0.6], [0.06, 0.998]], np.float32))]
    (found,) = diagnose(answered, right, lambda: faulty, tolerance=0.1, measure="cosine")
    assert found.fault == "lower-cased"
    assert "reference is 0.63 (cosine 0.8000), and 0.06 (cosine 0.9982)" in found.what
    assert found.fix == FAULTS["lower-cased"].fix


@pytest.mark.parametrize("length", [1.0, 50.0])
def test_a_batch_may_change_vectors_by_the_tolerance_of_their_mean_length(length: float) -> None:
    alone = np.array([[0.5 * length, 0], [0, 1.5 * length]], np.float32)
    assert batch_dependence(alone + np.float32(0.09 * length / 2**0.5), alone, 0.1) is None
    found = batch_dependence(alone + np.float32(0.11 * length / 2**0.5), alone, 0.1)
    assert found is not None
    assert found.fault == "batch-dependent"
    assert "is 0.1" in found.what


def test_a_batch_may_change_scores_by_the_tolerance_however_small_they_are() -> None:
    alone = np.array([0.01, 0.02], np.float32)
    assert batch_dependence(alone + np.float32(0.029), alone, 0.03) is None
    assert batch_dependence(alone + np.array([0, 0.031], np.float32), alone, 0.03) is not None


def test_a_limit_is_named_as_a_fault_is_and_else_what_is_off_is_told() -> None:
    limits = [("at 32", RIGHT + np.float32(0.04)), ("at 64", RIGHT + np.float32(0.02))]

    def told(answered: Floats) -> list[str]:
        return [one.what for one in diagnose_limit(answered, RIGHT, limits, tolerance=0.03)]

    assert told(RIGHT + np.float32(0.021)) == ["it cuts long inputs early: at 64"]
    assert told(RIGHT + np.float32(0.002)) == []
    assert len(told(RIGHT + np.array([0, 0, 0.04], np.float32))) == 1, "one text is enough"
    (unknown,) = told(RIGHT + np.float32(0.2))
    assert "off by up to 0.2; the limit is unknown" in unknown


@pytest.mark.parametrize(
    ("apart", "by_right", "is_lost"),
    [(0.0, 0.3, True), (0.09, 0.3, True), (0.11, 0.3, False), (0.0, 0.0009, False), (0.0, 0.0011, True)],
)
def test_an_end_is_lost_where_vectors_are_three_times_more_alike(
    apart: float, by_right: float, is_lost: bool
) -> None:
    """Vectors that are alike by right tell nothing."""
    answered = np.array([[1, 0], [1, apart]], np.float32)
    right = np.array([[1, 0], [1, by_right]], np.float32)
    found = lost_end(answered, right)
    assert bool(found) == is_lost
    assert all(f"get vectors {apart:.2g} apart, and by right {by_right:.2g};" in one.what for one in found)


def test_limits_are_tried_below_the_longest_input() -> None:
    assert list(limits_below(256)) == [32, 64, 128]
    assert list(limits_below(257)) == [32, 64, 128, 256]


@pytest.mark.parametrize("right", [RIGHT, np.eye(3, dtype=np.float32)], ids=["scores", "vectors"])
def test_another_order_is_recognised_within_the_tolerance(right: Floats) -> None:
    assert permutation(right[[2, 0, 1]] + np.float32(0.01), right, 0.03) == [2, 0, 1]
    assert permutation(right[[2, 0, 1]] + np.float32(0.04), right, 0.03) is None
    assert permutation(right + np.float32(0.04), right, 0.5) is None, "the order is right"
    assert permutation(right[[0, 0, 1]], right, 0.03) is None, "one answer came twice"


def test_a_scale_is_found_in_scores_that_are_nearly_0_or_1_too() -> None:
    log_odds = np.array([-12, -9, -3, 0, 6, 9], np.float32)
    factor, shift, predicted = scaling(yes_probability(0.5 * log_odds + 1), yes_probability(log_odds))
    assert (factor, shift) == pytest.approx((0.5, 1), abs=0.01)
    np.testing.assert_allclose(predicted, yes_probability(0.5 * log_odds + 1), atol=1e-3)


def test_another_order_is_told_by_the_inputs_that_the_answers_belong_to() -> None:
    (found,) = out_of_order(RIGHT[[1, 2, 0]], RIGHT, 0.03)
    assert "inputs 1, 2, 0, counted from 0" in found.what
    assert not out_of_order(RIGHT, RIGHT, 0.03)
