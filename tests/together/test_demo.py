"""The demo's three frameworks give one answer."""

from __future__ import annotations

import pytest
from qwen3_rag.demo.corpus import standard_library_passages
from qwen3_rag.demo.searches import FRAMEWORKS, Models, installed_frameworks
from qwen3_rag.demo.session import QUESTIONS, Run, compare, run_session


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return run_session(
        standard_library_passages(200), QUESTIONS[:3], installed_frameworks(), Models("demo", "demo", "cpu")
    )


def test_all_three_are_shown(runs: list[Run]) -> None:
    assert [run.framework for run in runs] == list(FRAMEWORKS)


def test_ids_and_scores_agree_bit_for_bit(runs: list[Run]) -> None:
    for run in runs[1:]:
        agreement = compare(runs[0], run)
        assert agreement.complete
        assert agreement.cosine_difference < 1e-12


def test_all_three_cost_the_same_tokens(runs: list[Run]) -> None:
    first, *others = [{name: step.usage for name, step in run.steps.items()} for run in runs]
    assert others[1:] == others[:-1]
    assert others[0]["retrieve"].computed_tokens <= first.pop("retrieve").computed_tokens, "kept on a CPU"
    assert {name: others[0][name] for name in first} == first
    assert first["rerank"].reused_tokens > 0
