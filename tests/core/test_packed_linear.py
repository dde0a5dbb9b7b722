"""On a CPU weights are arranged once, for all calls; that changes no number and keeps no second copy."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.transformers import backend, elementwise, packed_linear
from qwen3_rag.backends.transformers.elementwise import Elementwise
from qwen3_rag.backends.transformers.matmul import PackedMatmul
from qwen3_rag.backends.transformers.packed_linear import (
    PackedLinear,
    pack_linears,
    packing_works,
    padded_row_count,
)
from torch import Tensor, nn

TEXTS = ["gravity", "", "the capital of China is Beijing " * 9, "gravity is a force"]

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if packing_works(dtype)]

needs_packing = pytest.mark.skipif(
    torch.float32 not in DTYPES, reason="PyTorch has no prepacked linear layers on this machine"
)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(), reason="needs x86 and oneDNN"
)
def test_x86_has_packed_weights() -> None:
    """Else a mistake in them would only skip what tests them."""
    assert torch.float32 in DTYPES


def embed_and_score(embedding: Path, reranking: Path, dtype: Any) -> tuple[Any, Any]:
    options: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    with Embedder(str(embedding), **options) as embedder, Reranker(str(reranking), **options) as reranker:
        return embedder.embed_documents(TEXTS), reranker.score("gravity", TEXTS)


@needs_packing
@pytest.mark.parametrize("dtype", [str(dtype).removeprefix("torch.") for dtype in DTYPES])
def test_packed_weights_give_the_vectors_and_scores_of_plain_ones(
    dtype: str, embedding_checkpoint: Path, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = embed_and_score(embedding_checkpoint, reranking_checkpoint, dtype)
    monkeypatch.setattr(packed_linear, "packing_works", lambda _: False)
    plain = embed_and_score(embedding_checkpoint, reranking_checkpoint, dtype)
    if dtype == "float32":
        np.testing.assert_allclose(packed[0], plain[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(packed[1], plain[1], rtol=0, atol=1e-6)
    else:
        assert (packed[0] * plain[0]).sum(1).min() > 0.999
        np.testing.assert_allclose(packed[1], plain[1], rtol=0, atol=0.02)


@needs_packing
def test_every_linear_layer_on_a_cpu_is_packed(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype="float32", device="cpu") as embedder:
        decoder: Any = embedder.load().backend._model.decoder  # type: ignore[union-attr]
        kinds = [type(module) for module in decoder.modules()]
        assert kinds.count(PackedLinear) == 7 * len(decoder.layers)
        assert nn.Linear not in kinds


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)  # the first call of a number of rows makes a kernel
@given(rows=st.integers(1, 300))
def test_any_number_of_rows_is_multiplied(rows: int, dtype: torch.dtype) -> None:
    module = nn.Linear(32, 24, bias=False, dtype=dtype).requires_grad_(False)
    given_rows = torch.randn(rows, 32).to(dtype)
    before = given_rows.clone()
    expected = given_rows.float() @ module.weight.float().t()
    found = PackedLinear(module)(given_rows)
    assert found.shape == (rows, 24)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(given_rows, before)


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(rows=st.integers(1, 300), filled=st.booleans())
def test_products_are_gated_and_added_as_the_operations_one_by_one_would(
    rows: int, filled: bool, dtype: torch.dtype
) -> None:
    gate, up, down = (
        nn.Linear(*shape, bias=False, dtype=dtype).requires_grad_(False)
        for shape in ((32, 48), (32, 48), (48, 32))
    )
    generator = torch.Generator().manual_seed(rows)
    given_rows, states = (
        torch.randn(padded_row_count(rows), 32, generator=generator).to(dtype) for _ in range(2)
    )
    states = states[:rows]

    def exactly(module: nn.Linear, values: Tensor) -> Tensor:
        return values.float() @ module.weight.float().t()

    gated = nn.functional.silu(exactly(gate, given_rows)) * exactly(up, given_rows)
    expected = states.float() + exactly(down, gated)[:rows]
    packed_gate, packed_up, packed_down = (PackedMatmul(PackedLinear(module)) for module in (gate, up, down))
    found = packed_gate.gate(packed_up, given_rows)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), gated, rtol=tolerance, atol=tolerance)
    packed_down.add_to(states, found if filled else found[:rows])
    torch.testing.assert_close(states.float(), expected, rtol=tolerance, atol=tolerance)


@given(st.integers(1, 100_000))
def test_numbers_of_rows_recur(rows: int) -> None:
    """oneDNN keeps a kernel of each: unbounded in number they were gigabytes."""
    padded = padded_row_count(rows)
    assert rows <= padded <= max(4, rows * 9 / 8 + 4)
    assert padded_row_count(padded) == padded


def test_few_numbers_of_rows_recur() -> None:
    assert len({padded_row_count(rows) for rows in range(1, 2049)}) == 56
    assert padded_row_count(2048) == 2048


@needs_packing
@pytest.mark.parametrize("dtype", [str(dtype).removeprefix("torch.") for dtype in DTYPES])
def test_no_product_of_a_query_or_a_small_ranking_pads_its_rows(
    dtype: str, embedding_checkpoint: Path, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come filled: padding them in each product took a tenth of its time."""

    def pad(*_: Any) -> Tensor:
        raise AssertionError("a product pads its rows")

    options: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    with (
        Embedder(str(embedding_checkpoint), **options).load() as embedder,
        Reranker(str(reranking_checkpoint), **options).load() as reranker,
    ):
        monkeypatch.setattr(packed_linear.F, "pad", pad)
        for words in range(1, 12):
            embedder.embed_queries(["gravity " * words])
        reranker.score("gravity", ["a force", "an apple"])
        with pytest.raises(AssertionError, match="pads its rows"):
            embedder.embed_documents(["gravity " * 201])


@needs_packing
@pytest.mark.parametrize("added", [1, 3, 50])
def test_rows_that_fill_a_batch_change_no_vector_and_no_score(
    added: int, embedding_checkpoint: Path, reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed_and_score(embedding_checkpoint, reranking_checkpoint, "float32")
    monkeypatch.setattr(backend, "padded_batch_row_count", lambda rows: rows + added)
    filled = embed_and_score(embedding_checkpoint, reranking_checkpoint, "float32")
    np.testing.assert_allclose(filled[0], expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(filled[1], expected[1], rtol=0, atol=1e-6)


class Wrapped(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, rows: Tensor) -> Tensor:
        result: Tensor = self.base(rows)
        return result


def hooked(module: nn.Linear) -> nn.Linear:
    module.register_forward_hook(lambda *_: None)
    return module


def replaced_forward(module: nn.Linear) -> nn.Linear:
    module.forward = module.forward  # type: ignore[method-assign]  # as accelerate does
    return module


def tiny_decoder() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    return Qwen3Model(Qwen3Config(vocab_size=16, hidden_size=32, intermediate_size=48, **shape))


@needs_packing
@pytest.mark.parametrize(
    "changed",
    [
        Wrapped,
        hooked,
        replaced_forward,
        lambda module: nn.Linear(module.in_features, module.out_features),  # with a bias
        lambda module: module.to(torch.float16),
        lambda module: module.to("meta"),
    ],
    ids=["wrapped", "hooked", "replaced forward", "bias", "float16", "elsewhere"],
)
def test_layers_that_do_more_than_multiply_stay_as_they_are(changed: Any) -> None:
    decoder = tiny_decoder()
    mlp = decoder.layers[0].mlp
    mlp.up_proj = module = changed(mlp.up_proj)
    pack_linears(decoder)
    assert mlp.up_proj is module
    assert type(mlp.down_proj) is PackedLinear
    assert not isinstance(getattr(module, "base", None), PackedLinear)


@needs_packing
@pytest.mark.parametrize("packed", [True, False])
def test_a_gate_is_compiled_only_where_products_do_not_gate(packed: bool) -> None:
    made = []

    def record(name: str) -> Any:
        return lambda *_: made.append(name)

    decoder = tiny_decoder()
    if packed:
        pack_linears(decoder)
    operations = Elementwise(record("norm"), record("norm and rotate"), record("gate"))
    elementwise._compile_for(operations, decoder.layers[0], torch.float32)
    assert made == ["norm", "norm and rotate", "norm and rotate", *([] if packed else ["gate"])]


@needs_packing
@pytest.mark.parametrize(
    ("machine", "works"), [("x86_64", True), ("AMD64", True), ("aarch64", False), ("arm64", False)]
)
def test_weights_are_packed_on_x86_alone(machine: str, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert packing_works.__wrapped__(torch.float32) is works


@needs_packing
@pytest.mark.parametrize("wrong", ["forward", "silu", "times", "add_to"])
def test_packed_layers_that_compute_something_else_are_warned_of_and_not_used(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackedLinear, wrong, lambda _, rows, *__: rows.new_zeros(len(rows), 80))
    with pytest.warns(UserWarning, match="differ from PyTorch's"):
        assert not packing_works.__wrapped__(torch.float32)


@needs_packing
def test_packed_layers_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("mkldnn_bf16_device_check")

    monkeypatch.setattr(PackedLinear, "forward", fail)
    assert not packing_works.__wrapped__(torch.float32)


@needs_packing
def test_trying_packed_weights_leaves_the_global_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    assert packing_works.__wrapped__(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


MEMORY_SCRIPT = """
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from transformers import Qwen3Config, Qwen3Model
from qwen3_rag.backends.transformers.packed_linear import pack_linears, packing_works

def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

assert packing_works(torch.float32)
config = Qwen3Config(vocab_size=16, hidden_size=1024, intermediate_size=3072, num_hidden_layers=4)

def load():
    torch.ones(30 << 18)  # once 30 MB were freed, the C library keeps less than that for the thread
    return Qwen3Model(config)

with ThreadPoolExecutor(1) as loader:
    decoder = loader.submit(load).result()
weights = sum(p.numel() * p.element_size() for p in decoder.parameters()) >> 20
before = resident()
pack_linears(decoder)
print(weights, resident() - before)
"""


@needs_packing
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
def test_packed_weights_take_the_place_of_plain_ones() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    weights, more = map(int, re.findall(r"-?\d+", run.stdout.splitlines()[-1]))
    assert weights > 200
    assert more < weights / 4


KERNELS_SCRIPT = """
import re, sys
from pathlib import Path
from qwen3_rag import Embedder

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

with Embedder(sys.argv[1], dtype="float32", device="cpu") as embedder:
    for tokens in (2048, 1024, 512, 256, 128, 64):
        embedder.embed_documents([" word" * (tokens - 1)])
    before = resident()
    for tokens in range(260, 512):
        embedder.embed_documents([" word" * tokens])
    print(resident() - before)
"""


@needs_packing
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
def test_texts_of_ever_new_lengths_do_not_fill_the_memory(embedding_checkpoint: Path) -> None:
    command = [sys.executable, "-c", KERNELS_SCRIPT, str(embedding_checkpoint)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(f"{run.stdout.split()[-1]} MiB")
    assert int(run.stdout.split()[-1]) < 48
