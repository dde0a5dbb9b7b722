"""Training over the vectors of half of the pairs."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest
import torch

from training import checkpoints
from training.halves import Mean, add_changes, average, beside_each_other, halves
from training.pairs import Pair


def test_halves_share_no_source_and_no_pair() -> None:
    pairs = [Pair(f"q{i}", f"p{i}", "debian", f"package-{i % 50}") for i in range(500)]
    pairs += [Pair(f"word {i}", f"sense {i}", "wordnet", "wordnet") for i in range(500)]
    first, second = halves(pairs)
    assert sorted(map(str, first + second)) == sorted(map(str, pairs))
    technical = [{pair.source for pair in half if pair.kind == "debian"} for half in (first, second)]
    assert not technical[0] & technical[1]
    assert all(150 < sum(pair.kind == "wordnet" for pair in half) < 350 for half in (first, second))


def test_layers_and_token_table_are_averaged_as_far_as_is_asked(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    start = checkpoints.load_weights(embedding_checkpoint, "embedding")
    trained = []
    for number, step in enumerate((1.0, 3.0)):
        model = checkpoints.load_weights(embedding_checkpoint, "embedding")
        model.load_state_dict({name: weight + step for name, weight in model.state_dict().items()})
        trained.append(tmp_path / str(number))
        checkpoints.save(model, trained[-1], like=embedding_checkpoint, kind="embedding", dtype=torch.float32)
    average(embedding_checkpoint, trained, tmp_path / "mean", "embedding", Mean(layers=0.5, tables=0.25))
    mean = checkpoints.load_weights(tmp_path / "mean", "embedding").state_dict()
    for name, weight in start.state_dict().items():
        gone = 0.5 if "embed_tokens" in name else 1.0
        torch.testing.assert_close(mean[name], weight + gone, atol=1e-2, rtol=1e-2)  # saved in bfloat16


def test_changes_of_others_are_added_to_a_start_of_its_own(reranking_checkpoint: Path, tmp_path: Path) -> None:
    steps = {"start": 0.5, "before": 2.0, "after": 3.0, "before too": -1.0, "after too": 2.0}
    for name, step in steps.items():
        model = checkpoints.load_weights(reranking_checkpoint, "reranking")
        model.load_state_dict({key: weight + step for key, weight in model.state_dict().items()})
        checkpoints.save(
            model, tmp_path / name, like=reranking_checkpoint, kind="reranking", dtype=torch.float32
        )
    changed = [(tmp_path / "before", tmp_path / "after"), (tmp_path / "before too", tmp_path / "after too")]
    add_changes(tmp_path / "start", changed, tmp_path / "made", "reranking")
    made = checkpoints.load_weights(tmp_path / "made", "reranking").state_dict()
    for name, weight in checkpoints.load_weights(tmp_path / "start", "reranking").state_dict().items():
        more = 0.0 if "embed_tokens" in name or "lm_head" in name else 2.0  # mean of 1 and 3
        torch.testing.assert_close(made[name], weight + more, atol=2e-2, rtol=1e-2)  # saved in bfloat16


def test_jobs_beside_each_other_answer_in_the_order_they_were_given() -> None:
    assert beside_each_other(operator.mul, [(2, 3), (5, 7), (11, 13)]) == [6, 35, 143]
    with pytest.raises(ZeroDivisionError):
        beside_each_other(operator.truediv, [(1, 1), (1, 0)])
