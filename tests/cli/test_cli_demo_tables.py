"""What `demo` shows of runs; these are made up, and no model is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qwen3_rag.cli import demo_tables
from qwen3_rag.demo.searches import CORE, Found, Models
from qwen3_rag.demo.session import Answer, Run, Step
from qwen3_rag.usage import Usage

PASSAGES = [f"passage\n {number}" for number in range(8)]
DEMO = Models("demo", "demo")
RETRIEVED = [Found(number, 0.9 - number / 10) for number in range(8)]
RERANKED = [Found(number, 0.96 - place / 10) for place, number in enumerate((7, 3, 0, 1, 2, 4, 5, 6))]
RUN = Run(
    "langchain",
    "langchain-core 1.2.3",
    {"why [so]?": Answer(RETRIEVED, RERANKED)},
    {
        "index": Step(Usage(texts=1234, prompt_tokens=8000, computed_tokens=6000), 1.25),
        "rerank": Step(Usage(texts=8, prompt_tokens=0, computed_tokens=0), 0.5),
    },
)
OTHER = replace(RUN, framework="llama-index", release="llama-index-core 0.14")
SCORES = replace(OTHER, answers={"why [so]?": Answer(RETRIEVED, [Found(7, 0.961), *RERANKED[1:]])})
ORDER = replace(OTHER, answers={"why [so]?": Answer(RETRIEVED, [*RERANKED[1:], RERANKED[0]])})

PLACES = replace(OTHER, answers={"why [so]?": Answer(RETRIEVED[::-1], RERANKED)})


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(demo_tables, "lines_of_code", lambda framework, *models: f"{framework} {models}")


def shown(capsys: pytest.CaptureFixture[str], *runs: Run, models: Models = DEMO) -> str:
    demo_tables.show(list(runs), PASSAGES, models)
    return capsys.readouterr().out


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_five_answers_are_shown_with_their_places_before(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, RUN)
    assert "why [so]?" in text
    for row in (
        ["0.90", "passage", "0", "0.96", "8", "passage", "7"],
        ["0.80", "passage", "1", "0.86", "4", "passage", "3"],
        ["0.50", "passage", "4", "0.56", "3", "passage", "2"],
    ):
        assert row in rows(text)
    assert "passage 5" not in text, "the sixth"


def test_every_column_has_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(shown(capsys, RUN))
    assert ["cos", "retrieved", "yes", "was", "reranked"] in found
    assert ["framework", "package", "index", "rerank"] in found
    assert ["step", "texts", "of", "prompts", "computed", "saved"] in found


def test_costs_are_shown_of_each_framework_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(shown(capsys, RUN, OTHER))
    assert ["LangChain", "langchain-core", "1.2.3", "1.25", "0.50"] in found
    assert ["LlamaIndex", "llama-index-core", "0.14", "1.25", "0.50"] in found
    assert ["index", "1,234", "8,000", "6,000", "25%"] in found
    assert ["rerank", "8", "0", "0", "0%"] in found


def test_frameworks_agree_only_if_all_of_them_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "LangChain and LlamaIndex agree on all 1 questions" in shown(capsys, RUN, OTHER)
    third = replace(OTHER, framework="haystack")
    assert "LangChain, LlamaIndex and Haystack agree" in shown(capsys, RUN, OTHER, third)
    for fault in (SCORES, ORDER):
        text = shown(capsys, RUN, third, fault)
        assert " agree on all" not in text
        assert "LlamaIndex differs from LangChain" in text


def test_what_differs_is_named_and_what_does_not_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, RUN, SCORES)
    assert "LlamaIndex differs from LangChain: other scores" in text
    text = shown(capsys, RUN, PLACES)
    assert "LlamaIndex differs from LangChain: other passages retrieved, cosines by" in text
    text = shown(capsys, RUN, ORDER)
    assert "LlamaIndex differs from LangChain: another order after reranking, cosines by" in text


def test_one_framework_or_none_is_said_to_be_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Only LangChain is installed." in shown(capsys, RUN)
    assert 'pip install "qwen3-rag[all]"' in shown(capsys, replace(RUN, framework=CORE))


def test_models_of_ones_own_need_no_notice_and_stand_in_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    own = shown(capsys, RUN, models=Models("my/embedder", "my/reranker"))
    assert "for trying out only" not in own
    assert "langchain ('my/embedder', 'my/reranker')" in own
    assert "for trying out only" in shown(capsys, RUN, models=Models("demo", "my/reranker"))
    mixed = shown(capsys, RUN, models=Models("my/embedder", "demo"))
    assert "for trying out only" in mixed
    assert "langchain ('my/embedder', None)" in mixed
