"""`demo` and its stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import Invoke
from qwen3_rag import Embedder
from qwen3_rag.cli.demo import IN_YOUR_PROJECT, THE_REAL_THING
from qwen3_rag.demo.corpus import LONGEST, cut, file_passages, standard_library_passages
from qwen3_rag.demo.tokenizer import train_tokenizer
from qwen3_rag.tokenization import PromptTokenizer


def words(text: str) -> str:
    """Text without line ends and table borders."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def passages() -> list[str]:
    return standard_library_passages(300)


def test_demo_says_that_its_models_are_untrained_and_what_to_do_about_it(invoke: Invoke) -> None:
    run = invoke("demo", "--passages", 150, "--device", "cpu")
    assert run.code == 0, run.err
    assert "These models are untrained" in words(run.out)
    assert "reranker's scores are meaningless" in words(run.out)
    assert THE_REAL_THING in run.out
    assert run.out.rstrip().endswith(IN_YOUR_PROJECT)
    assert len(IN_YOUR_PROJECT.splitlines()) == 3


def test_demo_with_models_of_ones_own_gives_no_notice(
    invoke: Invoke, tmp_path: Path, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    (tmp_path / "notes.md").write_text("First paragraph.\n\nSecond\nparagraph.\n", encoding="utf-8")
    run = invoke(
        *("demo", "--model", embedding_checkpoint, "--reranker", reranking_checkpoint, "--device", "cpu"),
        *("--corpus", tmp_path, "--question", "what?", "--question", "why?", "--json"),
    )
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert report["notice"] is None
    assert report["passages"] == 2
    assert [answer["question"] for answer in report["answers"]] == ["what?", "why?"]
    for answer in report["answers"]:
        assert sorted(hit["reranked"] for hit in answer["hits"]) == [1, 2]
        assert {hit["text"] for hit in answer["hits"]} == {
            "notes.md: First paragraph.",
            "notes.md: Second\nparagraph.",
        }


def test_prefix_sharing_shows_in_the_demo(invoke: Invoke) -> None:
    steps = json.loads(invoke("demo", "--passages", 50, "--device", "cpu", "--json").out)["steps"]
    assert steps[1]["reused_tokens"] > 0
    assert steps[2]["reused_tokens"] > 0


def test_a_corpus_that_is_not_there_is_bad_usage(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("demo", "--corpus", tmp_path / "none").code == 2
    assert "holds no text" in invoke("demo", "--corpus", tmp_path).err


def test_standard_library_passages_are_the_same_each_time_and_bounded(passages: list[str]) -> None:
    assert passages == standard_library_passages(300)
    assert len(passages) == 300
    assert max(map(len, passages)) <= LONGEST + 2
    assert len({passage.split(":")[0].split(".")[0] for passage in passages}) > 100


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


def test_the_trained_tokenizer_has_what_qwen3_prompts_need(passages: list[str]) -> None:
    for texts in (passages, ["a"]):
        tokenizer = train_tokenizer(texts, vocabulary=2048)
        prompt_tokenizer = PromptTokenizer(tokenizer)
        yes, no = prompt_tokenizer.answer_ids()
        assert yes != no
        text = "Ünïcode, 数据库\n\tand <think> "
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
        assert tokenizer.encode("a").ids[-1] == prompt_tokenizer.end_of_text


def test_the_untrained_embedder_finds_texts_by_their_rare_words(tmp_path: Path, passages: list[str]) -> None:
    from qwen3_rag.demo.untrained import save_word_embedder

    texts = [*passages, "The zebrafish swims in the river.", "The locksmith opens a door."]
    folder = save_word_embedder(tmp_path, train_tokenizer(texts), texts)
    with Embedder(str(folder), device="cpu", dtype="float32") as embedder:
        vectors = embedder.embed_documents(texts)
        queries = embedder.embed_queries(["what does the zebrafish do", "who is a locksmith"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (queries @ vectors.T).argmax(axis=1).tolist() == [len(texts) - 2, len(texts) - 1]
