"""The recipe's pure parts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.tokenization import PromptTokenizer
from tokenizers import Tokenizer
from transformers import Qwen3Model

from training import checkpoints, extract, transplant
from training.data import is_held_out
from training.encoder import last_hidden, right_padded
from training.instructions import UNSEEN_INSTRUCTION, vary
from training.metrics import area_under_curve, ndcg_at_10, ranks
from training.pairs import Pair, read_pairs, write_pairs


def test_ndcg_of_first_and_second_place() -> None:
    assert ndcg_at_10([0, 1, 10]) == pytest.approx((1 + 1 / np.log2(3)) / 3)


def test_ties_count_against_the_answer() -> None:
    assert ranks(np.ones((1, 4), np.float32), [2]).tolist() == [3]


def test_area_under_curve_counts_ties_half() -> None:
    assert area_under_curve([1.0, 2.0], [1.0, 0.0]) == pytest.approx(0.875)


def test_pairs_survive_their_file(tmp_path: Path) -> None:
    pairs = [Pair("what is ü?", "a letter\nof German", "user", "x")]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"query": "a", "passage": "b"}\n{"query": "a"}\n')
    with pytest.raises(ValueError, match="line 2: need an object with query and passage"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_training_never_sees_the_unseen_instruction() -> None:
    generator = random.Random(0)
    given = [vary(generator) for _ in range(2000)]
    assert UNSEEN_INSTRUCTION not in given
    assert 0.45 < given.count(DEFAULT_INSTRUCTION) / len(given) < 0.55
    assert len(set(given)) > 300


def test_a_source_is_on_one_side_and_a_fifth_is_held_out() -> None:
    share = np.mean([is_held_out(f"package-{i}") for i in range(2000)])
    assert 0.17 < share < 0.23
    assert is_held_out("numpy") == is_held_out("numpy")


def test_a_docstring_gives_its_first_sentence_and_the_rest(tmp_path: Path) -> None:
    prose = "It reads them one after another and gives each as text without its ending" + " to the caller" * 3
    (tmp_path / "reader.py").write_text(
        f'def lines(path):\n    """Read the lines of a file.\n\n    {prose}\n\n    :param path: x\n    """\n'
    )
    (pair,) = extract.docstring_pairs(tmp_path, "reader")
    assert pair.query == "Read the lines of a file"
    assert pair.passage.endswith(f"reader.lines: {prose}")


def test_a_manual_page_gives_its_summary_and_description(tmp_path: Path) -> None:
    import gzip

    page = (
        ".TH CP 1\n.SH NAME\ncp \\- copy files and directories\n.SH DESCRIPTION\n"
        "Copies\n.I SOURCE\nto \\fIDEST\\fR, or several of them into a directory that exists already.\n"
    )
    (tmp_path / "usr/share/man/man1").mkdir(parents=True)
    (tmp_path / "usr/share/man/man1/cp.1.gz").write_bytes(gzip.compress(page.encode()))
    (pair,) = extract.manual_pairs(tmp_path, "coreutils")
    assert pair.query == "copy files and directories"
    assert pair.passage == "cp: Copies SOURCE to DEST, or several of them into a directory that exists already."


def test_tokenizer_is_qwens_construction(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    yes, no = PromptTokenizer.from_folder(tmp_path).answer_ids()
    assert yes != no
    assert tokenizer.encode("a").tokens[-1] == "<|endoftext|>"
    assert len(tokenizer.get_added_tokens_decoder()) == 26


def test_rows_of_a_batch_do_not_depend_on_the_others_lengths(tokenizer: Tokenizer) -> None:
    model = Qwen3Model(transplant.config(tokenizer, hidden=64, layers=2, heads=2, intermediate=16)).eval()
    generator = random.Random(0)
    rows = [[generator.randrange(300) for _ in range(generator.randint(1, 40))] for _ in range(70)]
    with torch.no_grad():
        together = last_hidden(model, right_padded(rows))
        alone = torch.cat([last_hidden(model, right_padded([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_transplanted_vectors_embed_as_their_mean_under_any_instruction(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    hidden = 64
    config = transplant.config(tokenizer, hidden=hidden, layers=2, heads=2, intermediate=16)
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), hidden - 8)).astype(np.float32)
    model = Qwen3Model(config)
    transplant.start_embedder(model, tokenizer, vectors)
    model.save_pretrained(tmp_path)
    checkpoints.write_small_files(tmp_path, tokenizer, "embedding")
    text = "tool-3: It works with files number 3 and archives."
    mean = vectors[tokenizer.encode(text, add_special_tokens=False).ids].mean(axis=0)
    with Embedder(str(tmp_path), dtype="float32", device="cpu") as embedder:
        document = embedder.embed_documents([text])[0, : hidden - 8]
        queries = [embedder.embed_queries([text], instruction=i)[0] for i in (None, UNSEEN_INSTRUCTION)]
    assert document @ mean / np.linalg.norm(mean) > 0.95
    assert queries[0] @ queries[1] > 0.999
