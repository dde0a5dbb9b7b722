"""Linear layers are Hugging Face's modules, called as they are, so LoRA and quantised ones work.

Plain ones on a CPU are packed when a model is loaded. Here they are replaced by others at that moment.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import CheckpointError, Embedder
from qwen3_rag.backends.transformers import backend, loading
from qwen3_rag.backends.transformers.decoder import Decoder
from qwen3_rag.backends.transformers.elementwise import EAGER
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
TEXTS = ["gravity", "the capital of China", "long " * 600]


class Adapted(nn.Module):
    """A frozen layer and a low-rank adapter beside it, as peft has them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(base.out_features)
        self.base = base
        self.down = torch.randn(4, base.in_features, generator=generator) * 0.02
        self.up = torch.randn(base.out_features, 4, generator=generator) * 0.02

    def forward(self, rows: Tensor) -> Tensor:
        return self.base(rows) + rows @ self.down.T @ self.up.T


class WithBatchAxis(nn.Module):
    """Some quantised layers give a batch axis to rows that came without one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.base(rows)
        return out[None] if out.ndim == 2 else out


class InDouble(nn.Module):
    """Another dtype than that of the rows comes back."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.base(rows)
        return out.double()


def replacing(kind: Any) -> Any:
    """Put what a function gives in the place of every linear layer of a decoder that is being loaded."""

    def replace(decoder: Any) -> None:
        for layer in decoder.layers:
            for part in (layer.self_attn, layer.mlp):
                for name, module in list(part.named_children()):
                    if isinstance(module, nn.Linear):
                        setattr(part, name, kind(module))

    return replace


def embed_with(kind: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(backend, "pack_linears", replacing(kind))
    # An engine of its own: one of equal settings, which another test left open, would be shared.
    with Embedder(str(checkpoint), max_queued=1023, **OPTIONS) as embedder:
        return embedder.embed_documents(TEXTS)


def as_it_is(base: nn.Linear) -> nn.Linear:
    return base


def merged(base: nn.Linear) -> nn.Linear:
    adapter = Adapted(base)
    base.weight.data += adapter.up @ adapter.down
    return base


def test_adapters_beside_linear_layers_count(
    embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, vectors, expected = (
        embed_with(kind, embedding_checkpoint, monkeypatch) for kind in (as_it_is, Adapted, merged)
    )
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.abs(vectors - plain).max() > 1e-3


@pytest.mark.parametrize("kind", [WithBatchAxis, InDouble])
def test_layers_that_return_another_shape_or_dtype_give_the_same_vectors(
    kind: type[nn.Module], embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, vectors = (embed_with(each, embedding_checkpoint, monkeypatch) for each in (as_it_is, kind))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def saved_by_transformers_5(checkpoint: Path, folder: Path, **rope: Any) -> Path:
    """The checkpoint with the base of its rotary embedding where Transformers 5 alone writes it."""
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("rope_theta", None)
    config["rope_parameters"] = {"rope_theta": 1_000_000.0, "rope_type": "default", **rope}
    path.write_text(json.dumps(config))
    return folder


def test_a_checkpoint_saved_by_transformers_5_keeps_its_positions(
    embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = saved_by_transformers_5(embedding_checkpoint, tmp_path / "five")
    with Embedder(str(folder), **OPTIONS) as five, Embedder(str(embedding_checkpoint), **OPTIONS) as original:
        np.testing.assert_allclose(five.embed_documents(TEXTS), original.embed_documents(TEXTS), atol=1e-6)


def test_positions_that_this_release_would_misread_are_refused(
    embedding_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved_by_transformers_5(embedding_checkpoint, tmp_path / "yarn", rope_type="yarn", factor=4.0)
    monkeypatch.setattr(loading, "version", lambda: (4, 57))
    with pytest.raises(CheckpointError, match=r"transformers>=5"), Embedder(str(folder), **OPTIONS) as embedder:
        embedder.load()


ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10_240},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 8192},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
def test_positions_are_rotated_as_the_module_does_but_by_no_product_of_matrices(
    rope: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some GPUs such a product rounds positions, if TF32 is allowed."""
    widths = {"vocab_size": 9, "hidden_size": 16, "intermediate_size": 16, "head_dim": 128}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3Config(
        rope_parameters={"rope_theta": 1_000_000.0, **rope}, max_position_embeddings=40_960, **widths, **heads
    )
    modules = Qwen3Model(config).to(dtype)
    positions = torch.tensor([0, 1, 7, 2049, 4097, 40_959, *range(300)], dtype=torch.int32)
    hidden = torch.zeros(len(positions), 16, dtype=dtype)
    expected_cosine, expected_sine = modules.rotary_emb(hidden[None], positions[None])
    monkeypatch.setattr(type(modules.rotary_emb), "forward", None)
    batch: Any = SimpleNamespace(position_ids=positions)
    cosine, sine = Decoder(modules, EAGER)._rotation(hidden, batch)
    assert cosine.dtype == sine.dtype == dtype
    assert torch.equal(cosine[:, 0], expected_cosine[0])
    assert torch.equal(sine[:, 0], expected_sine[0, :, :64])


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_positions_that_depend_on_the_longest_text_of_a_batch_are_refused(
    name: str, kind: str, embedding_checkpoint: Path
) -> None:
    checkpoint = SimpleNamespace(folder=embedding_checkpoint)
    for key in ("rope_type", "type"):
        config = SimpleNamespace(**{name: {key: kind, "factor": 4.0}})
        with pytest.raises(CheckpointError, match=f"scales positions by '{kind}'"):
            loading._check_positions(config, checkpoint)  # type: ignore[arg-type]


def test_a_checkpoint_with_such_positions_is_not_loaded(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = saved_by_transformers_5(embedding_checkpoint, tmp_path / "d", rope_type="dynamic", factor=4.0)
    with (
        Embedder(str(folder), **OPTIONS) as embedder,
        pytest.raises(CheckpointError, match=r"scales positions by 'dynamic'|transformers>=5"),
    ):
        embedder.load()


@pytest.mark.parametrize("in_the_checkpoint", [False, True])
def test_quantised_weights_are_made_on_the_device_that_was_asked_for(in_the_checkpoint: bool) -> None:
    config = SimpleNamespace(**({"quantization_config": {}} if in_the_checkpoint else {}))
    given = {} if in_the_checkpoint else {"quantization_config": object()}
    place = loading._with_device_of_quantised
    assert place(config, torch.device("cuda:1"), given) == {**given, "device_map": {"": "cuda:1"}}
    own = {**given, "device_map": "auto"}
    assert place(config, torch.device("cuda:1"), own) == own
    assert place(SimpleNamespace(), torch.device("cuda:1"), {}) == {}
