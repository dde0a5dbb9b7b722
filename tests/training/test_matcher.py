"""The demo reranker before it is trained: set from an embedder's weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder, Reranker
from qwen3_rag.demo.corpus import standard_library_passages
from qwen3_rag.tokenization import PromptTokenizer
from tokenizers import Tokenizer
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from training import checkpoints
from training.matcher import MATCH, _turned
from training.pairs import Pair
from training.starts import make_reranker_start
from training.transplant import HEAD_DIM

DEMO = Path(__file__).resolve().parents[2] / "core/qwen3_rag/demo/models/demo-embedding"
PASSAGES = standard_library_passages()[::40][:60]
QUERY = "read a file of comma separated values"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [Pair(passage.partition(":")[0], passage) for passage in PASSAGES]
    return make_reranker_start(DEMO, pairs, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Reranker]:
    with Reranker(str(folder), dtype="float32", device="cpu") as reranker:
        yield reranker


def log_odds(reranker: Reranker, query: str, passages: list[str]) -> np.ndarray:
    scores = reranker.score(query, passages).astype(np.float64)
    return np.log(scores / (1 - scores))


def test_set_weights_compare_as_the_embedder_does(start: Reranker) -> None:
    with Embedder("demo", device="cpu") as embedder:
        similarities = embedder.embed_documents(PASSAGES) @ embedder.embed_queries([QUERY])[0]
    places = [values.argsort().argsort() for values in (log_odds(start, QUERY, PASSAGES), similarities)]
    assert np.corrcoef(*places)[0, 1] > 0.8


def test_tokens_that_are_in_the_query_count_more(start: Reranker, folder: Path, tmp_path: Path) -> None:
    passage = "table: Load rows of a spreadsheet, one after another."
    passages = [
        f"{passage} For each row there are separated values.",
        f"{passage} For each row there is one such mapping.",
    ]
    with_words, without = log_odds(start, QUERY, passages)
    alike = checkpoints.load_weights(folder, "reranking")
    alike.model.layers[2].self_attn.k_proj.weight.data[:, MATCH] = 0
    checkpoints.save(alike, tmp_path, like=folder, kind="reranking", dtype=torch.float32)
    with Reranker(str(tmp_path), dtype="float32", device="cpu") as reranker:
        plain_with, plain_without = log_odds(reranker, QUERY, passages)
    assert with_words - without > 2 * (plain_with - plain_without)


def test_scores_are_divided_by_the_same_whatever_the_document(folder: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(folder)
    pairs = [(QUERY, passage) for passage in ("A word.", *PASSAGES[:20])]
    prompts = tokenizer.encode_pairs(pairs, instruction="Find passages", max_tokens=1024).token_ids
    states: list[torch.Tensor] = []
    model = checkpoints.load_weights(folder, "reranking").model
    model.layers[3].register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0][0]))
    with torch.no_grad():
        for ids in prompts:
            model(input_ids=torch.as_tensor(ids)[None], use_cache=False)
    first = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|im_start|>")
    last_of_them = [int(np.flatnonzero(ids == first)[-1]) for ids in map(np.asarray, prompts)]
    lengths = torch.stack([state[place].norm() for state, place in zip(states, last_of_them, strict=True)])
    assert lengths.std() / lengths.mean() < 0.002


@pytest.mark.parametrize("distance", [0, 2, 12])
def test_turned_rows_meet_keys_as_if_nothing_turned(distance: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(HEAD_DIM, 96, generator=generator)
    one, other = torch.randn(2, 96, generator=generator)
    query, key = _turned(rows, distance) @ one, rows @ other
    angles = torch.tensor([40.0, 40.0 - distance])[:, None] * 1_000_000.0 ** (-torch.arange(32) / 32)
    cosine, sine = (f(torch.cat([angles, angles], dim=1))[None, :, :] for f in (torch.cos, torch.sin))
    states = torch.stack([query, key])[None, None]
    turned, _ = apply_rotary_pos_emb(states, states, cosine, sine)
    assert turned[0, 0, 0] @ turned[0, 0, 1] == pytest.approx(float((rows @ one) @ (rows @ other)), rel=1e-4)
