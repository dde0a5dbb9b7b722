"""Weights that real quantisers made: Hugging Face's own forward call on them is the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Qwen3ForSequenceClassification, Qwen3Model, Shape, genuine_tokenizer, make_checkpoint
from oracle import EmbeddingOracle, RerankingOracle
from qwen3_rag import CheckpointError, Embedder, Reranker
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
# bitsandbytes cuts rows of weights into blocks of 64.
SHAPE = Shape(hidden=128, layers=3, heads=4, kv_heads=2, head_dim=32, intermediate=192)
TEXTS = ["gravity", "The capital of China is Beijing.", "long words " * 300]
PAIRS = [("a question", "an answer"), ("a question", "another " * 50), ("else", "an answer")]

QUANTISERS: dict[str, tuple[Callable[[], Any], float]] = {
    "torchao, int8 weights": (lambda: TorchAoConfig(Int8WeightOnlyConfig()), 1e-6),
    # What is rounded to few steps in each product makes one step of what was the same to seven digits.
    "torchao, int8 weights and rows": (lambda: TorchAoConfig(Int8DynamicActivationInt8WeightConfig()), 1e-3),
    "bitsandbytes, 8 bits": (lambda: BitsAndBytesConfig(load_in_8bit=True), 1e-3),
    "bitsandbytes, 4 bits": (
        lambda: BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        ),
        1e-3,
    ),
}
"""How weights are quantised, and the most that 1 - cosine may be from Hugging Face's."""

each_quantiser = pytest.mark.parametrize("name", list(QUANTISERS))


@pytest.fixture(scope="module")
def embedding_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding")
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    return make_checkpoint(folder, tokenizer, architecture=Qwen3Model, shape=SHAPE)


@pytest.fixture(scope="module")
def reranking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("reranking"))


def make_reranker(folder: Path, **options: Any) -> Path:
    return make_checkpoint(folder, genuine_tokenizer(appends_end_of_text=False), shape=SHAPE, **options)


def with_model(oracle: Any, model: Any) -> Any:
    oracle.model = model.eval()
    return oracle


def quantised(kind: Any, folder: Path, config: Any) -> Any:
    return kind.from_pretrained(folder, dtype=torch.float32, quantization_config=config)


@each_quantiser
def test_vectors_are_those_of_hugging_face_on_the_same_weights(name: str, embedding_checkpoint: Path) -> None:
    config, most = QUANTISERS[name]
    oracle = with_model(
        EmbeddingOracle(embedding_checkpoint), quantised(AutoModel, embedding_checkpoint, config())
    )
    expected = np.concatenate([oracle.embed([text]) for text in TEXTS])
    with Embedder(str(embedding_checkpoint), model_kwargs={"quantization_config": config()}, **OPTIONS) as own:
        vectors = own.embed_documents(TEXTS)
    assert (1 - (vectors * expected).sum(axis=1)).max() <= most


@each_quantiser
def test_scores_are_those_of_hugging_face_on_the_same_weights(name: str, reranking_checkpoint: Path) -> None:
    (config, most), folder = QUANTISERS[name], reranking_checkpoint
    oracle = with_model(RerankingOracle(folder), quantised(AutoModelForCausalLM, folder, config()))
    expected = np.concatenate([oracle.score([pair]) for pair in PAIRS])
    with Reranker(str(folder), model_kwargs={"quantization_config": config()}, **OPTIONS) as own:
        scores, _ = own.evaluate(PAIRS)
    found, right = (np.log(values / (1 - values)) for values in (scores, expected))
    np.testing.assert_allclose(found, right, atol=1e-3 if most < 1e-5 else 0.1 * np.ptp(right))
    assert np.ptp(right) > 5


def test_weights_that_were_saved_quantised_need_no_configuration(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    config, _ = QUANTISERS["bitsandbytes, 4 bits"]
    quantised(AutoModel, embedding_checkpoint, config()).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((embedding_checkpoint / name).read_bytes())
    given = {"quantization_config": config()}
    with (
        Embedder(str(embedding_checkpoint), model_kwargs=given, **OPTIONS) as once,
        Embedder(str(tmp_path), **OPTIONS) as saved,
    ):
        np.testing.assert_allclose(saved.embed_documents(TEXTS), once.embed_documents(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"backend": "sentence-transformers"}, {"device": ["cpu", "cpu"]}], ids=["library", "processes"]
)
def test_they_are_taken_by_another_library_and_by_processes_of_their_own(
    options: dict[str, Any], embedding_checkpoint: Path
) -> None:
    config, most = QUANTISERS["torchao, int8 weights"]
    kwargs = {"quantization_config": config()}
    with (
        Embedder(str(embedding_checkpoint), model_kwargs=kwargs, **OPTIONS) as one,
        Embedder(str(embedding_checkpoint), model_kwargs=kwargs, **OPTIONS | options) as other,
    ):
        cosines = (one.embed_documents(TEXTS) * other.embed_documents(TEXTS)).sum(axis=1)
    assert (1 - cosines).max() <= most


def test_a_classification_head_stays_as_it_is(tmp_path: Path) -> None:
    folder = make_reranker(tmp_path, architecture=Qwen3ForSequenceClassification)
    config, _ = QUANTISERS["torchao, int8 weights"]
    with (
        Reranker(str(folder), **OPTIONS) as plain,
        Reranker(str(folder), model_kwargs={"quantization_config": config()}, **OPTIONS) as own,
    ):
        np.testing.assert_allclose(own.evaluate(PAIRS)[0], plain.evaluate(PAIRS)[0], atol=0.1)


@pytest.mark.parametrize(
    "config",
    [
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["none"]),
        TorchAoConfig(Int8WeightOnlyConfig(), include_input_output_embeddings=True),
    ],
    ids=["bitsandbytes", "torchao"],
)
def test_a_quantised_vocabulary_head_is_refused(config: Any, tmp_path: Path) -> None:
    folder = make_reranker(tmp_path, tied=False)
    with (
        Reranker(str(folder), model_kwargs={"quantization_config": config}, **OPTIONS) as own,
        pytest.raises(CheckpointError, match=r"head of .* is quantised .*skip_modules"),
    ):
        own.load()
