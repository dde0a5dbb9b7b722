"""Fine-tuning changes a checkpoint as asked, and what it saves is what the package loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qwen3_rag import PRESETS, Embedder, PromptTooLongError, Reranker, WrongModelKindError
from qwen3_rag.prompts import query_prompt
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from transformers import Qwen3Config, Qwen3Model

from training import checkpoints
from training.embedder import EmbedderSettings, train_embedder
from training.finetune import finetune_embedder, finetune_reranker
from training.negatives import mine
from training.pairs import Pair, answers_of
from training.reranker import Candidates, RerankerSettings, loss_of, train_reranker

SUBJECTS = (
    "gzip files",
    "mail servers",
    "random numbers",
    "command lines",
    "dates",
    "threads",
    "sockets",
    "logs",
)
PAIRS = [
    Pair(f"about {subject}", f"This module works with {subject} and nothing else.") for subject in SUBJECTS
]
SEVERAL_ANSWERS = [
    *PAIRS,
    *(Pair(pair.query, f"The manual: {pair.query}.") for pair in PAIRS),
    *(Pair(f"what is {pair.query}?", pair.passage) for pair in PAIRS),
]
"""Each query of PAIRS has two passages, and each passage of PAIRS has two queries."""

EMBEDDER = EmbedderSettings(
    steps=12, batch_size=8, mini_batch_size=4, learning_rate=5e-3, max_tokens=64, lora_rank=4
)
RERANKER = RerankerSettings(steps=12, batch_size=4, learning_rate=5e-3, max_tokens=256, lora_rank=4)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    """The batches that an embedder is trained on: rows of a query ("anchor") and its passage ("positive")."""
    batches: list[list[dict[str, str]]] = []
    collate = SentenceTransformerDataCollator.__call__

    def recorded(self: SentenceTransformerDataCollator, rows: list[dict[str, str]]) -> Any:
        batches.append(rows)
        return collate(self, rows)

    monkeypatch.setattr(SentenceTransformerDataCollator, "__call__", recorded)
    return batches


@pytest.fixture(scope="module")
def tuned_embedder(embedding_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned-embedder")
    finetune_embedder(str(embedding_checkpoint), PAIRS, folder, EMBEDDER)
    return folder


@pytest.fixture(scope="module")
def tuned_reranker(
    reranking_checkpoint: Path, embedding_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tuned-reranker")
    finetune_reranker(
        str(reranking_checkpoint), str(embedding_checkpoint), PAIRS, folder, RERANKER, negatives=3
    )
    return folder


def margin(folder: Path) -> float:
    """How much nearer queries are to their own passages than to the others, on average."""
    with Embedder(str(folder), dtype="float32", device="cpu") as embedder:
        queries = embedder.embed_queries([pair.query for pair in PAIRS])
        similarities = queries @ embedder.embed_documents([pair.passage for pair in PAIRS]).T
    own = np.diag(similarities)
    return float(own.mean() - (similarities.sum() - own.sum()) / (similarities.size - len(own)))


def loss(folder: Path) -> float:
    """Yes/no cross-entropy over all pairs of a query and a passage, right and wrong weighing the same."""
    with Reranker(str(folder), dtype="float32", device="cpu") as reranker:
        pairs = [(query.query, passage.passage) for query in PAIRS for passage in PAIRS]
        scores = reranker.score_pairs(pairs).reshape(len(PAIRS), len(PAIRS)).clip(1e-6, 1 - 1e-6)
    right = np.eye(len(PAIRS), dtype=bool)
    return float(-np.log(scores[right]).mean() - np.log(1 - scores[~right]).mean())


def test_tuned_embedder_tells_its_pairs_apart_better(embedding_checkpoint: Path, tuned_embedder: Path) -> None:
    assert margin(tuned_embedder) > margin(embedding_checkpoint) + 0.01


def test_tuned_reranker_loses_less_on_its_pairs(reranking_checkpoint: Path, tuned_reranker: Path) -> None:
    assert loss(tuned_reranker) < loss(reranking_checkpoint) - 0.1


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_adapters_are_merged_into_the_layout_of_the_start(kind: str, request: pytest.FixtureRequest) -> None:
    start = request.getfixturevalue("embedding_checkpoint" if kind == "embedder" else "reranking_checkpoint")
    tuned = load_file(request.getfixturevalue(f"tuned_{kind}") / "model.safetensors")
    original = load_file(start / "model.safetensors")
    assert {name: weight.shape for name, weight in tuned.items()} == {
        name: weight.shape for name, weight in original.items()
    }
    query_weights = next(name for name in original if name.endswith("q_proj.weight"))
    moved = (tuned[query_weights].float() - original[query_weights]).abs().max()
    assert moved > 1e-3


def test_mined_negatives_are_other_passages_and_the_nearest(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype="float32", device="cpu") as embedder:
        mined = mine(embedder, PAIRS, negatives=2, depth=2)
        queries = embedder.embed_queries([pair.query for pair in PAIRS])
        similarities = queries @ embedder.embed_documents([pair.passage for pair in PAIRS]).T
    for row, (pair, item) in enumerate(zip(PAIRS, mined, strict=True)):
        assert item.passages[0] == pair.passage
        assert pair.passage not in item.passages[1:]
        nearest = [PAIRS[i].passage for i in np.argsort(-similarities[row])[:3]]
        assert set(item.passages[1:]) <= set(nearest)


def test_no_answer_of_a_query_is_mined_as_a_negative(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype="float32", device="cpu") as embedder:
        mined = mine(embedder, SEVERAL_ANSWERS, negatives=14, depth=14)
    right = answers_of(SEVERAL_ANSWERS)
    assert [item.passages[0] for item in mined] == [pair.passage for pair in SEVERAL_ANSWERS]
    for item in mined:
        assert right[item.query].isdisjoint(item.passages[1:])
        assert len(set(item.passages[1:])) == 14


def test_no_answer_of_a_query_stands_in_its_batch_as_another_ones(
    embedding_checkpoint: Path, tmp_path: Path, seen: list[list[dict[str, str]]]
) -> None:
    settings = replace(EMBEDDER, steps=6, batch_size=4, lora_rank=0)
    train_embedder(str(embedding_checkpoint), SEVERAL_ANSWERS, tmp_path, settings, prompt="")
    right = answers_of(SEVERAL_ANSWERS)
    assert [len(batch) for batch in seen] == [4] * 6
    for batch in seen:
        passages = {row["positive"] for row in batch}
        assert all(right[row["anchor"]] & passages == {row["positive"]} for row in batch)


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_a_token_table_that_is_not_trained_stays_as_it_is(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    start = request.getfixturevalue("embedding_checkpoint" if kind == "embedder" else "reranking_checkpoint")
    if kind == "embedder":
        mined = {pair: [other.passage for other in PAIRS if other != pair] for pair in PAIRS}
        settings = replace(EMBEDDER, steps=2, batch_size=4, lora_rank=0, train_tokens=False, negatives=2)
        train_embedder(str(start), PAIRS, tmp_path, settings, prompt="", mined=mined)
    else:
        candidates = [Candidates(pair.query, (pair.passage, PAIRS[0].query)) for pair in PAIRS]
        frozen = replace(RERANKER, steps=2, lora_rank=0, kept=("embed_tokens",))
        train_reranker(str(start), candidates, tmp_path, frozen, instruct=lambda _: "Find passages")
    tuned, original = (load_file(folder / "model.safetensors") for folder in (tmp_path, start))
    changed = {name for name in original if not tuned[name].equal(original[name].to(tuned[name].dtype))}
    assert not any("embed_tokens" in name for name in changed)
    assert any("q_proj" in name for name in changed)


def test_an_embedders_own_negatives_stand_in_its_batches(
    embedding_checkpoint: Path, tmp_path: Path, seen: list[list[dict[str, str]]]
) -> None:
    mined = {pair: [f"{pair.passage} Not.", f"{pair.passage} Nor."] for pair in PAIRS}
    settings = replace(EMBEDDER, steps=2, batch_size=4, mini_batch_size=4, lora_rank=0, negatives=2)
    train_embedder(str(embedding_checkpoint), PAIRS, tmp_path, settings, prompt="", mined=mined)
    for row in (row for batch in seen for row in batch):
        assert {row["negative_0"], row["negative_1"]} == {
            f"{row['positive']} {end}" for end in ("Not.", "Nor.")
        }


def test_the_trained_instruction_is_what_the_saved_checkpoint_queries_with(
    embedding_checkpoint: Path, tmp_path: Path, seen: list[list[dict[str, str]]]
) -> None:
    settings = replace(EMBEDDER, steps=2, lora_rank=0)
    finetune_embedder(str(embedding_checkpoint), PAIRS, tmp_path / "tuned", settings, instruction="code")
    assert all(row["anchor"].startswith(query_prompt(PRESETS["code"])) for row in seen[0])
    with Embedder(str(tmp_path / "tuned"), dtype="float32", device="cpu") as embedder:
        np.testing.assert_array_equal(
            embedder.embed_queries(["gzip"]), embedder.embed_queries(["gzip"], instruction="code")
        )
        other = embedder.embed_queries(["gzip"], instruction="retrieval")
        assert np.abs(embedder.embed_queries(["gzip"]) - other).max() > 1e-3


def test_without_an_instruction_the_starts_own_prompts_are_trained_with_and_kept(
    embedding_checkpoint: Path, tmp_path: Path, seen: list[list[dict[str, str]]]
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for file in embedding_checkpoint.iterdir():
        (start / file.name).symlink_to(file)
    prompts = {"query": "Search for: ", "document": "Text: "}
    (start / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    settings = replace(EMBEDDER, steps=2, lora_rank=0)
    finetune_embedder(str(start), PAIRS, tmp_path / "tuned", settings)
    assert all(row["anchor"].startswith("Search for: about") for row in seen[0])
    assert all(row["positive"].startswith("Text: This") for row in seen[0])
    saved = json.loads((tmp_path / "tuned" / "config_sentence_transformers.json").read_text())
    assert saved["prompts"] == prompts


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_saved_checkpoints_say_how_positions_are_encoded_to_transformers_4_too(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """It reads `rope_theta` and `rope_scaling`; 5 writes `rope_parameters` and nothing else."""
    config = json.loads((request.getfixturevalue(f"tuned_{kind}") / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1_000_000.0
    assert config.get("rope_scaling") is None


def test_scaled_positions_are_saved_for_transformers_4_too(embedding_checkpoint: Path, tmp_path: Path) -> None:
    config = Qwen3Config.from_pretrained(embedding_checkpoint, vocab_size=16, pad_token_id=0)
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    config.rope_parameters = {"rope_theta": 1_000_000.0, **scaling}
    checkpoints.save(Qwen3Model(config), tmp_path, like=embedding_checkpoint, kind="embedding")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["rope_theta"] == 1_000_000.0
    assert scaling.items() <= saved["rope_scaling"].items()
    again = Qwen3Config.from_pretrained(tmp_path).rope_parameters
    assert {"rope_theta": 1_000_000.0, **scaling}.items() <= again.items()


def test_more_negatives_than_passages_is_refused(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), device="cpu") as embedder,
        pytest.raises(ValueError, match="8 negatives of each query need more distinct passages: got 8"),
    ):
        mine(embedder, PAIRS, negatives=8)


def test_unequal_candidates_are_refused(reranking_checkpoint: Path, tmp_path: Path) -> None:
    candidates = [Candidates("a", ("b", "c")), Candidates("a", ("b", "c", "d"))]
    with pytest.raises(ValueError, match=r"equally many candidates, at least 2; got \[2, 3\]"):
        train_reranker(
            str(reranking_checkpoint), candidates, tmp_path, RERANKER, instruct=lambda _: "Find passages"
        )


def test_a_saved_reranker_is_known_from_its_files(tuned_reranker: Path) -> None:
    with pytest.raises(WrongModelKindError, match="give it to Reranker"):
        Embedder(str(tuned_reranker)).load()
    with Reranker(str(tuned_reranker), backend="sentence-transformers", device="cpu", dtype="float32") as other:
        theirs = other.score(PAIRS[0].query, [pair.passage for pair in PAIRS])
    with Reranker(str(tuned_reranker), device="cpu", dtype="float32") as reranker:
        ours = reranker.score(PAIRS[0].query, [pair.passage for pair in PAIRS])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_start_saved_by_cross_encoder_keeps_what_it_scores_with(
    reranking_checkpoint: Path, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    CrossEncoder(str(reranking_checkpoint), device="cpu").save(str(start), create_model_card=False)
    settings = replace(RERANKER, steps=1)
    finetune_reranker(str(start), str(embedding_checkpoint), PAIRS, tmp_path / "tuned", settings, negatives=3)
    with Reranker(str(tmp_path / "tuned"), device="cpu") as reranker:
        assert reranker.score(PAIRS[0].query, ["gzip"]).shape == (1,)


def test_a_rerankers_query_that_is_too_long_is_named_before_anything_is_computed(
    reranking_checkpoint: Path, embedding_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.finetune.mine", lambda *_, **__: pytest.fail("negatives were mined"))
    pairs = [*PAIRS, Pair("about " + "words " * 200, "A passage.")]
    with pytest.raises(PromptTooLongError, match=r"^pair 9, whose query is 'about words .* max_tokens=256"):
        finetune_reranker(
            str(reranking_checkpoint), str(embedding_checkpoint), pairs, tmp_path, RERANKER, negatives=3
        )


def test_loss_weighs_answers_and_the_choice_between_candidates() -> None:
    log_odds = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 3.0, -2.0]])
    right = torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3)
    each = F.binary_cross_entropy_with_logits(log_odds, right, reduction="none")
    answers = (each[:, 0] + each[:, 1:].mean(dim=1)).mean() / 2
    choice = -log_odds.softmax(dim=1)[:, 0].log().mean()
    for yes_no, listwise in ((1.0, 0.0), (0.0, 1.0), (0.5, 2.0)):
        expected = yes_no * answers + listwise * choice
        torch.testing.assert_close(loss_of(log_odds, yes_no=yes_no, listwise=listwise), expected)
