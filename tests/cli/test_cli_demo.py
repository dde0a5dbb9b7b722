"""`demo`: the pair inside the package, through whatever framework is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Invoke
from qwen3_rag.demo import corpus, searches
from qwen3_rag.demo.corpus import LONGEST, cut, file_passages, standard_library_passages
from qwen3_rag.demo.searches import Found, Models, installed_frameworks, lines_of_code
from qwen3_rag.demo.session import Answer, Run, compare, run_session
from qwen3_rag.errors import ConfigurationError

PASSAGES = [
    "The zebrafish swims in the river.",
    "The locksmith opens the door.",
    "A loaf of bread is baked from flour and water.",
]
QUESTIONS = ["what does the zebrafish do", "who opens a door"]


@pytest.fixture(scope="module")
def whole_library() -> list[str]:
    return standard_library_passages()


@pytest.fixture(scope="module")
def core_run() -> Run:
    (run,) = run_session(PASSAGES, QUESTIONS, [searches.CORE], Models("demo", "demo", "cpu"))
    return run


def test_the_demo_needs_no_option_and_ends_with_code_for_ones_own_project(invoke: Invoke) -> None:
    run = invoke("demo", "--passages", 60, "--device", "cpu")
    assert run.code == 0, run.err
    assert "compress data with gzip" in run.out
    assert "saved" in run.out
    (*_, last) = installed_frameworks()
    assert run.out.rstrip().endswith(lines_of_code(last, None, None))


def test_tables_fit_into_80_columns(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = invoke("demo", "--passages", 60, "--device", "cpu", "--question", "how [do] I compress?")
    tables = run.out.split("The demo models")[0]
    assert "how [do] I compress?" in tables
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 80


def test_json_tells_what_each_framework_found_and_what_it_cost(invoke: Invoke) -> None:
    report = json.loads(invoke("demo", "--passages", 60, "--device", "cpu", "--json").out)
    assert [found["framework"] for found in report["frameworks"]] == installed_frameworks()
    for found in report["frameworks"]:
        assert found["agreement"]["reranked"] is True
        assert found["steps"]["index"]["texts"] == report["passages"] == 60
        assert found["steps"]["rerank"]["reused_tokens"] > 0
        for answer in found["answers"]:
            cosines = [hit["score"] for hit in answer["retrieved"]]
            scores = [hit["score"] for hit in answer["reranked"]]
            assert cosines == sorted(cosines, reverse=True)
            assert scores == sorted(scores, reverse=True)


def test_models_and_corpus_of_ones_own(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    (tmp_path / "notes.md").write_text("First paragraph.\n\nSecond\nparagraph.\n\nFirst paragraph.\n")
    run = invoke(
        *("demo", "--model", embedding_checkpoint, "--reranker", reranking_checkpoint, "--device", "cpu"),
        *("--corpus", tmp_path, "--question", "what?", "--question", "why?", "--json"),
    )
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert report["model"] == str(embedding_checkpoint)
    assert report["passages"] == 2, "equal passages are indexed once"
    for found in report["frameworks"]:
        assert [answer["question"] for answer in found["answers"]] == ["what?", "why?"]
        for answer in found["answers"]:
            assert {hit["text"] for hit in answer["reranked"]} == {
                "notes.md: First paragraph.",
                "notes.md: Second\nparagraph.",
            }


def test_the_whole_standard_library_is_indexed_but_not_with_a_published_model(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, whole_library: list[str]
) -> None:
    """A session is not run: only how many passages it would be given is looked at."""
    asked: list[int] = []

    def stop(limit: int) -> list[str]:
        asked.append(limit)
        raise OSError("enough")

    monkeypatch.setattr("qwen3_rag.demo.corpus.standard_library_passages", stop)
    invoke("demo", "--model", "Qwen/Qwen3-Embedding-0.6B")
    invoke("demo")
    assert asked[0] == 300
    assert asked[1] > len(whole_library) > 3000


@pytest.mark.parametrize("question", ["", " \n"])
def test_a_blank_question_is_bad_usage(invoke: Invoke, question: str) -> None:
    run = invoke("demo", "--passages", 30, "--device", "cpu", "--question", "why?", "--question", question)
    assert run.code == 2
    assert "--question must not be blank" in run.err


def test_a_corpus_that_is_not_there_is_bad_usage(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("demo", "--corpus", tmp_path / "none").code == 2
    assert "holds no text" in invoke("demo", "--corpus", tmp_path).err


def test_the_core_alone_is_shown_where_no_framework_is_installed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "list_plugins", lambda _: [])
    assert installed_frameworks() == [searches.CORE]
    run = invoke("demo", "--passages", 30, "--device", "cpu", "--question", "how do I compress?")
    assert "core" in run.err
    assert 'pip install "qwen3-rag[all]"' in run.out


def test_the_right_passage_is_first(core_run: Run) -> None:
    first = [(a.retrieved[0].passage, a.reranked[0].passage) for a in core_run.answers.values()]
    assert first == [(0, 0), (1, 1)]


def test_a_run_agrees_with_itself(core_run: Run) -> None:
    agreement = compare(core_run, core_run)
    assert agreement.complete
    assert agreement.cosine_difference == 0


@pytest.mark.parametrize(
    ("retrieved", "reranked", "broken"),
    [
        ([Found(1, 0.9), Found(0, 0.8)], [Found(0, 0.7), Found(1, 0.2)], "retrieved"),
        ([Found(0, 0.9), Found(1, 0.8)], [Found(1, 0.7), Found(0, 0.2)], "reranked"),
        ([Found(0, 0.9), Found(1, 0.8)], [Found(0, 0.7000001), Found(1, 0.2)], "scores"),
    ],
)
def test_what_differs_is_found(
    core_run: Run, retrieved: list[Found], reranked: list[Found], broken: str
) -> None:
    first = replace(
        core_run, answers={"?": Answer([Found(0, 0.9), Found(1, 0.8)], [Found(0, 0.7), Found(1, 0.2)])}
    )
    agreement = compare(first, replace(core_run, answers={"?": Answer(retrieved, reranked)}))
    assert not agreement.complete
    assert getattr(agreement, broken) is False


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_exit_code_is_1_where_frameworks_differ(
    core_run: Run, monkeypatch: pytest.MonkeyPatch, invoke: Invoke, tmp_path: Path, form: tuple[str, ...]
) -> None:
    """What is compared is made up: the frameworks themselves agree."""
    reverse = {
        question: Answer(answer.retrieved[::-1], answer.reranked)
        for question, answer in core_run.answers.items()
    }
    runs = [core_run, replace(core_run, framework="haystack", answers=reverse)]
    monkeypatch.setattr("qwen3_rag.demo.session.run_session", lambda *_, **__: runs)
    # The framework that is said to differ need not be installed.
    monkeypatch.setattr("qwen3_rag.cli.demo_tables.lines_of_code", lambda *_: "its lines of code")
    (tmp_path / "corpus.txt").write_text("\n\n".join(PASSAGES))
    command = ("demo", "--corpus", tmp_path / "corpus.txt", *form)
    run = invoke(*command)
    assert run.code == 1
    assert "haystack" in run.out.lower()
    monkeypatch.setattr("qwen3_rag.demo.session.run_session", lambda *_, **__: runs[:1] * 2)
    assert invoke(*command).code == 0


def test_the_lines_of_code_name_the_models_that_were_asked_for() -> None:
    lines = lines_of_code(searches.CORE, "my/embedder", "my/reranker")
    assert "Embedder(model='my/embedder')" in lines
    assert "Reranker(model='my/reranker')" in lines


@pytest.mark.parametrize("framework", installed_frameworks())
def test_the_lines_of_code_run(framework: str) -> None:
    lines = lines_of_code(framework, "demo", "demo")
    assert len(lines.splitlines()) == 3
    names: dict[str, Any] = {"texts": PASSAGES, "question": QUESTIONS[0], "store": _Store()}
    exec(lines, names)


class _Store:
    def similarity_search(self, *_: object, **__: object) -> list[object]:
        return []


def test_standard_library_passages_are_the_same_each_time_and_bounded(whole_library: list[str]) -> None:
    passages = standard_library_passages(300)
    assert passages == whole_library[:300]
    assert max(map(len, whole_library)) <= LONGEST + 2
    assert len({passage.split(":")[0].split(".")[0] for passage in passages}) > 100


def test_few_passages_are_found_without_reading_the_whole_library(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    documented = corpus._documented

    def noted(path: Path, module: str) -> Iterator[str]:
        read.append(path)
        yield from documented(path, module)

    monkeypatch.setattr(corpus, "_documented", noted)
    assert len(standard_library_passages(20)) == 20
    assert len(read) < 100


def test_a_cut_passage_shows_that_it_was_cut_unless_it_ends_with_a_paragraph() -> None:
    assert cut("short") == "short"
    assert cut("word " * 300).endswith(" …")
    assert cut("a" * 400 + "\n\n" + "b" * 400) == "a" * 400


def test_file_passages_are_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one\n\n\ntwo\n", encoding="utf-8")
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "c.bin").write_text("not read", encoding="utf-8")
    assert file_passages(tmp_path, 10) == ["a.py: x = 1", "b.txt: one", "b.txt: two"]
    assert file_passages(tmp_path, 2) == ["a.py: x = 1", "b.txt: one"]
    assert file_passages(tmp_path / "b.txt", 10) == ["b.txt: one", "b.txt: two"]


def test_files_of_a_folder_that_are_not_utf_8_are_left_out_and_named(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "b.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    told: list[str] = []
    assert file_passages(tmp_path, 10, report=told.append) == ["b.txt: one", "b.txt: two"]
    (line,) = told
    assert line.startswith(f"left out: {tmp_path / 'a.txt'} is not UTF-8")
    run = invoke("demo", "--corpus", tmp_path, "--question", "one?", "--device", "cpu")
    assert run.code == 0
    assert line in run.err


def test_one_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"a\.txt is not UTF-8: .* save it as UTF-8"):
        file_passages(tmp_path / "a.txt", 10)


def test_a_folders_git_caches_and_virtual_environments_are_not_read(tmp_path: Path) -> None:
    for folder in (".git", "env", "node_modules", "docs"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "a.txt").write_text(f"in {folder}\n")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert file_passages(tmp_path, 10) == ["a.txt: in docs"]
