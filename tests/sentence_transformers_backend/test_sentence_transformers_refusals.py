"""The chat-template trap is mended or refused, and what would be silently wrong is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from checkpoints import small_tokenizer
from qwen3_rag import (
    DEFAULT_INSTRUCTION,
    CheckpointError,
    ConfigurationError,
    Embedder,
    Reranker,
)
from qwen3_rag.backends.sentence_transformers import create, inputs
from qwen3_rag.backends.sentence_transformers.options import Options
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import PromptTokenizer
from saved_folders import (
    CHAT_TEMPLATE,
    HIDDEN,
    RERANK_TEMPLATE,
    modules_of,
    save_cross_encoder,
    save_embedder,
    with_chat_template,
    write_modules,
)
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from tokenizers import processors

PLAIN: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
OPTIONS: dict[str, Any] = {"backend": "sentence-transformers", **PLAIN}
TEXTS = ["The capital of China is Beijing.", "gravity"]


def test_a_plain_checkpoint_with_a_chat_template_is_not_wrapped(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = with_chat_template(embedding_checkpoint, tmp_path / "chat", CHAT_TEMPLATE)
    right = Embedder(str(embedding_checkpoint), **PLAIN).embed_documents(TEXTS)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert (theirs * right).sum(axis=1).max() < 0.9, "the trap is gone; documentation and check can go too"
    np.testing.assert_allclose(Embedder(str(folder), **OPTIONS).embed_documents(TEXTS), right, atol=1e-5)


def test_a_plain_reranker_with_a_chat_template_is_not_wrapped(
    reranking_checkpoint: Path, tmp_path: Path
) -> None:
    folder = with_chat_template(reranking_checkpoint, tmp_path / "chat", CHAT_TEMPLATE)
    right = Reranker(str(reranking_checkpoint), **PLAIN).score("why?", TEXTS)
    theirs = CrossEncoder(str(folder), device="cpu").predict([("why?", text) for text in TEXTS])
    assert np.abs(theirs - right).max() > 0.01
    np.testing.assert_allclose(Reranker(str(folder), **OPTIONS).score("why?", TEXTS), right, atol=1e-5)


def test_what_was_saved_with_a_chat_template_around_its_texts_is_refused(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    source = with_chat_template(embedding_checkpoint, tmp_path / "chat", CHAT_TEMPLATE)
    folder = save_embedder(source, tmp_path / "saved")
    with pytest.raises(CheckpointError, match="chat template"):
        Embedder(str(folder), **OPTIONS).load()
    accepting = Embedder(str(folder), model_kwargs={"accept_other_inputs": True}, **OPTIONS)
    right = Embedder(str(embedding_checkpoint), **PLAIN).embed_documents(TEXTS)
    np.testing.assert_allclose(accepting.embed_documents(TEXTS), right, atol=1e-5)


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE,
        RERANK_TEMPLATE.replace("{{ '\n\n' }}", "\n\n"),
        RERANK_TEMPLATE.replace("</think>", ""),
    ],
    ids=["chat", "newline lost", "think block open"],
)
def test_a_cross_encoder_saved_with_another_prompt_is_refused(
    template: str, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    source = with_chat_template(reranking_checkpoint, tmp_path / "chat", template)
    folder = save_cross_encoder(source, tmp_path / "saved")
    with pytest.raises(CheckpointError, match="chat template"):
        Reranker(str(folder), **OPTIONS).load()


def test_a_saved_tokenizer_without_the_closing_token_is_refused(
    reranking_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_embedder(reranking_checkpoint, tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"does not append <\|endoftext\|>"):
        Embedder(str(folder), **OPTIONS).load()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("$A <|endoftext|> <|endoftext|>", r"appends <\|endoftext\|> twice"),
        ("<|im_start|> $A <|endoftext|>", r"token 0 of a sample text differs \((\d+) tokens there"),
        ("$A <|im_end|>", "token [1-9][0-9]* of a sample text differs"),
        ("$A <|endoftext|> <|im_end|>", "token [1-9][0-9]* of a sample text differs"),
    ],
)
def test_a_saved_tokenizer_that_adds_other_tokens_is_refused(
    template: str, message: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(embedding_checkpoint, tmp_path / "source")
    tokenizer = small_tokenizer(appends_end_of_text=False)
    names = [token for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, tokenizer.token_to_id(name)) for name in set(names)]
    )
    tokenizer.save(str(source / "tokenizer.json"))
    folder = save_embedder(source, tmp_path / "saved")
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(folder), **OPTIONS).load()


@pytest.mark.parametrize(
    ("theirs", "index"), [([1, 2], 2), ([1, 5, 3, 4], 1), ([1, 2, 3, 4, 5], 4)], ids=["cut", "other", "longer"]
)
def test_the_first_token_that_differs_is_told(theirs: list[int], index: int) -> None:
    reason = inputs._reason([1, 2, 3, 4], theirs, end_of_text=4, wraps=False)
    assert reason.startswith(f"token {index} of a sample text differs ({len(theirs)} tokens there")


def test_a_plain_tokenizer_without_the_closing_token_gets_it(
    reranking_checkpoint: Path,
) -> None:
    folder = str(reranking_checkpoint)
    right = Embedder(folder, **PLAIN).embed_documents(TEXTS)
    found = Embedder(folder, **OPTIONS).embed_documents(TEXTS)
    np.testing.assert_allclose(found, right, atol=1e-5)


def test_a_base_model_gets_no_random_score_head(embedding_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no head to score with"):
        Reranker(str(embedding_checkpoint), **OPTIONS).load()


@pytest.mark.parametrize("has_two", [True, False], ids=["other words", "one word"])
def test_answers_other_than_yes_and_no_are_scored_by_that_library_or_not_at_all(
    has_two: bool, templated: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(templated, tmp_path / "answers")
    head = folder / "1_LogitScore" / "config.json"
    saved = json.loads(head.read_text())
    yes, no = PromptTokenizer.from_folder(folder).answer_ids()
    assert (saved["true_token_id"], saved["false_token_id"]) == (yes, no)
    answers = (300, 301) if has_two else (yes, None)
    head.write_text(json.dumps(saved | {"true_token_id": answers[0], "false_token_id": answers[1]}))
    with pytest.raises(
        CheckpointError, match=rf"true_token_id={answers[0]} .*yes and no, tokens {yes} and {no}"
    ) as e:
        Reranker(str(folder), **PLAIN).load()
    assert 'backend="sentence-transformers"' in str(e.value)
    model = CrossEncoder(str(folder), device="cpu")
    theirs = model.predict(
        [("why?", text) for text in TEXTS], prompt=DEFAULT_INSTRUCTION, activation_fn=torch.nn.Sigmoid()
    )
    np.testing.assert_allclose(Reranker(str(folder), **OPTIONS).score("why?", TEXTS), theirs, atol=1e-5)


def test_a_head_of_a_saved_cross_encoder_is_not_ignored(reranking_checkpoint: Path, tmp_path: Path) -> None:
    transformer = Transformer(str(reranking_checkpoint))
    modules = [transformer, Pooling(HIDDEN, "lasttoken"), Dense(HIDDEN, 1, module_output_name="scores")]
    folder = tmp_path / "dense"
    CrossEncoder(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    with pytest.raises(CheckpointError, match='Pooling module; use backend="sentence-transformers"'):
        Reranker(str(folder), **PLAIN).load()


def test_several_labels_are_refused(reranking_checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(reranking_checkpoint, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    labels = {str(i): f"label {i}" for i in range(3)}
    config |= {"id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="3 labels"):
        Reranker(str(source), **OPTIONS).load()


def test_another_activation_is_refused(reranking_checkpoint: Path, tmp_path: Path) -> None:
    folder = save_cross_encoder(reranking_checkpoint, tmp_path / "saved", activation_fn=torch.nn.Tanhshrink())
    with pytest.raises(CheckpointError, match="activation Tanhshrink"):
        Reranker(str(folder), **OPTIONS).load()


@pytest.mark.parametrize("activation", [torch.nn.Identity, torch.nn.Sigmoid])
def test_activations_that_keep_the_order_change_no_score(
    activation: Any, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_cross_encoder(reranking_checkpoint, tmp_path / "saved", activation_fn=activation())
    right = Reranker(str(reranking_checkpoint), **PLAIN).score("why?", TEXTS)
    np.testing.assert_allclose(Reranker(str(folder), **OPTIONS).score("why?", TEXTS), right, atol=1e-5)


def test_modules_that_need_more_than_ids_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved")
    router = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"}
    write_modules(folder, [router, *modules_of(folder)[1:]])
    with pytest.raises(CheckpointError, match="Router module, which needs more than token ids"):
        Embedder(str(folder), **OPTIONS).load()


def test_pooling_without_the_prompt_is_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = save_embedder(embedding_checkpoint, tmp_path / "saved")
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "include_prompt": False}))
    with pytest.raises(CheckpointError, match="include_prompt"):
        Embedder(str(folder), **OPTIONS).load()


def test_unknown_model_kwargs_are_answered_with_the_known_ones(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), model_kwargs={"attention": "sdpa"}, **OPTIONS)
    with pytest.raises(ConfigurationError, match=r"knows no 'attention'.*attn_implementation"):
        embedder.load()


@pytest.mark.parametrize("name", ["use_safetensors", "trust_remote_code", "accept_other_inputs"])
def test_a_switch_that_is_a_word_is_refused(name: str, embedding_checkpoint: Path) -> None:
    """As a file may have it: "false" would run a checkpoint's code."""
    embedder = Embedder(str(embedding_checkpoint), model_kwargs={name: "false"}, **OPTIONS)
    with pytest.raises(ConfigurationError, match=f"{name} must be True or False, got 'false'"):
        embedder.load()


def test_model_kwargs_reach_the_model(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), model_kwargs={"attn_implementation": "eager"}, **OPTIONS)
    backend: Any = embedder.load().backend
    assert backend._loaded.transformer.auto_model.config._attn_implementation == "eager"


def test_only_what_is_given_goes_to_transformers() -> None:
    assert Options.parse({"accept_other_inputs": True}).from_pretrained() == {"use_safetensors": True}
    given = {"device_map": "auto", "quantization_config": object(), "attn_implementation": "sdpa"}
    assert Options.parse(given).from_pretrained() == {"use_safetensors": True, **given}


def test_weights_of_a_hub_are_fetched(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(model: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append((model, "*.safetensors" in allow_patterns))
        return str(embedding_checkpoint)

    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    create(EngineSettings("embedding", "nobody/small", dtype="float32", device="cpu")).close()
    assert asked == [("nobody/small", True)]


def test_a_conversion_without_a_padding_token_scores_batches(
    converted_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(converted_checkpoint, tmp_path / "unpadded")
    right = Reranker(str(folder), **PLAIN).score("why?", TEXTS)
    config = json.loads((folder / "config.json").read_text())
    config["pad_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_allclose(Reranker(str(folder), **OPTIONS).score("why?", TEXTS), right, atol=1e-5)
