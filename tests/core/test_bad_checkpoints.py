"""Damaged, incomplete and foreign checkpoints give one clear error, before a wrong number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from checkpoints import Qwen3Model, genuine_tokenizer
from qwen3_rag import (
    CheckpointError,
    ConfigurationError,
    Embedder,
    NonFiniteOutputError,
    Reranker,
    WrongModelKindError,
)
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.settings import EngineSettings
from safetensors.torch import load_file, save_file

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def damaged(checkpoint: Path, folder: Path, damage: Any) -> Path:
    """Copy a checkpoint and change its weights."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_unknown_or_absent_model_is_a_checkpoint_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"(?s)cannot get model 'nobody/nothing'.*[^. \n]\. Give"):
        Embedder("nobody/nothing").load()
    with pytest.raises(CheckpointError, match="no such folder"):
        Embedder(str(tmp_path / "absent")).load()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Embedder(str(tmp_path)).load()


def test_corrupt_and_incomplete_weights_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    corrupt = shutil.copytree(embedding_checkpoint, tmp_path / "corrupt")
    weights = corrupt / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load weights"):
        Embedder(str(corrupt), **OPTIONS).load()
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot load weights"):
        Embedder(str(corrupt), **OPTIONS).load()
    lacking = damaged(
        embedding_checkpoint, tmp_path / "lacking", lambda w: w.pop("layers.1.mlp.up_proj.weight")
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj"):
        Embedder(str(lacking), **OPTIONS).load()


def test_pickled_weights_are_not_loaded_unless_asked(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        Embedder(str(folder), **OPTIONS).load()
    vectors = Embedder(str(folder), **OPTIONS, model_kwargs={"use_safetensors": False}).embed_documents(["a"])
    assert vectors.shape == (1, 64)


def test_what_transformers_does_not_take_is_blamed_on_model_kwargs_and_not_on_the_checkpoint(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    options = {**OPTIONS, "model_kwargs": {"torch_compile": True}}
    for made in (
        Embedder(str(embedding_checkpoint), **options),
        Reranker(str(reranking_checkpoint), **options),
    ):
        with pytest.raises(ConfigurationError, match="model_kwargs holds 'torch_compile', which Transformers"):
            made.load()


def test_a_choice_of_attention_is_refused_rather_than_ignored(embedding_checkpoint: Path) -> None:
    options = {**OPTIONS, "model_kwargs": {"attn_implementation": "flash_attention_2"}}
    with pytest.raises(ConfigurationError, match="attn_implementation='flash_attention_2', but attention is"):
        Embedder(str(embedding_checkpoint), **options).load()


def test_a_word_for_trust_runs_no_code_of_a_checkpoint(embedding_checkpoint: Path, tmp_path: Path) -> None:
    """As a file may have it: "false" would count as true."""
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "foreign")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "theirs.TheirConfig"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map}))
    (folder / "theirs.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import Qwen3Config\nclass TheirConfig(Qwen3Config): pass\n"
    )
    with pytest.raises(ConfigurationError, match="trust_remote_code must be True or False, got 'false'"):
        Embedder(str(folder), **OPTIONS, model_kwargs={"trust_remote_code": "false"}).load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", ["qwen3"], "must hold a JSON object, got list"),
        ("config.json", {"model_type": "qwen3"}, "must have hidden_size, a whole number, got None"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling"}], "modules with type and path"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts in .* must be strings by name"),
        ("config_sentence_transformers.json", {"prompts": {"query": 5}}, "must be strings by name, got {'que"),
        ("modules.json", ["sentence_transformers.models.Pooling"], "modules with type and path"),
        ("modules.json", 2, "modules with type and path"),
        ("adapter_config.json", {}, "holds an adapter without its model"),
    ],
)
def test_descriptions_that_say_something_else_are_refused(
    name: str, content: Any, message: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copy(embedding_checkpoint / "tokenizer.json", tmp_path)
    if name != "adapter_config.json":
        shutil.copy(embedding_checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(tmp_path), **OPTIONS).load()


def test_a_model_beside_an_adapter_that_it_may_hold_already_is_refused(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "trained")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="holds a model and an adapter"):
        Embedder(str(folder), **OPTIONS).load()
    elsewhere = EngineSettings("embedding", str(folder), backend="remote")
    assert open_checkpoint(elsewhere, weights=False).hidden_size == 64, "a server reads its own weights"


def test_nan_weights_name_the_text_and_give_no_vector(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids[0] for text in ("gravity", " gravity")]

    def damage(weights: dict[str, torch.Tensor]) -> None:
        next(w for name, w in weights.items() if "embed_tokens" in name)[tokens] = float("nan")

    model = str(damaged(embedding_checkpoint, tmp_path / "embedding", damage))
    with pytest.raises(NonFiniteOutputError, match="NaN or infinity for text 1"):
        Embedder(model, **OPTIONS).embed_documents(["fine", "gravity", "fine too"])
    model = str(damaged(reranking_checkpoint, tmp_path / "reranking", damage))
    with pytest.raises(NonFiniteOutputError, match="text 601"):
        Reranker(model, **OPTIONS).score("why?", [*(["fine"] * 601), "gravity"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("common", ["", "one and the same prefix of many words in all of them "])
def test_nan_of_one_text_is_in_no_other_text_of_the_batch(
    common: str, dtype: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    token = genuine_tokenizer(appends_end_of_text=True).encode("gravity", add_special_tokens=False).ids[0]

    def damage(weights: dict[str, torch.Tensor]) -> None:
        next(w for name, w in weights.items() if "embed_tokens" in name)[token] = float("nan")

    model = str(damaged(embedding_checkpoint, tmp_path / "embedding", damage))
    texts = [f"{common}{number} times" for number in range(6)]
    texts.insert(3, f"{common}gravity, gravity and so on" if not common else f"{common}1gravity and so on")
    with Embedder(model, **{**OPTIONS, "dtype": dtype}) as embedder:
        backend = embedder.load().backend
        assert backend is not None
        run, finite = backend.run, dict[int, bool]()

        def noted(prompts: Any) -> Any:
            output = run(prompts)
            for prompt, values in zip(prompts, output.values, strict=True):
                finite[prompt.index] = bool(np.isfinite(values).all())
            return output

        with (
            patch.object(backend, "run", noted),
            pytest.raises(NonFiniteOutputError, match="NaN or infinity for text 3"),
        ):
            embedder.embed_documents(texts)
    assert finite == {number: number != 3 for number in range(7)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "uses sliding-window"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e6}},
            "scales positions by 'dynamic'",
        ),
    ],
)
def test_what_is_refused_in_a_checkpoint_is_refused_in_model_kwargs(
    changed: dict[str, Any], message: str, embedding_checkpoint: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(embedding_checkpoint), **OPTIONS, model_kwargs=changed).load()


def test_kinds_are_told_apart_where_they_can_be(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(WrongModelKindError, match="give it to Reranker"):
        Embedder("Qwen/Qwen3-Reranker-4B").load()
    with pytest.raises(WrongModelKindError, match="give it to Embedder"):
        Reranker(str(embedding_checkpoint.parent / "Qwen3-Embedding-0.6B-tuned")).load()
    saved = shutil.copytree(reranking_checkpoint, tmp_path / "mine")
    (saved / "config_sentence_transformers.json").write_text('{"model_type": "SentenceTransformer"}')
    with pytest.raises(WrongModelKindError, match="is a Qwen3 embedding model: give it to Embedder"):
        Reranker(str(saved)).load()


def test_other_architectures_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "other")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen3"', '"model_type": "qwen3_evil"'))
    with pytest.raises(CheckpointError, match="'qwen3_evil' model; only Qwen3"):
        Embedder(str(folder), **OPTIONS).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 128}, "sliding-window attention"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"is_causal": False}, "has is_causal=False"),
    ],
)
def test_what_no_published_qwen3_has_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from transformers import Qwen3Config

    genuine_tokenizer(appends_end_of_text=True).save(str(tmp_path / "tokenizer.json"))
    config = Qwen3Config(
        vocab_size=151669, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    for name, value in change.items():
        setattr(config, name, value)
    Qwen3Model(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(tmp_path), **OPTIONS).load()


def test_weights_that_are_kept_outside_the_devices_are_refused() -> None:
    from qwen3_rag.backends.transformers.loading import _place

    elsewhere = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(ConfigurationError, match="device_map='auto' leaves some weights"):
        _place(elsewhere, torch.device("cpu"), {"device_map": "auto"})
