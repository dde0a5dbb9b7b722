"""No more work is done, and no larger tensor made, than the numbers need. Counted in the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VOCABULARY
from qwen3_rag import DEFAULT_INSTRUCTION, Embedder, Reranker
from qwen3_rag.backends.transformers import packed_linear
from qwen3_rag.backends.transformers.decoder import Decoder
from qwen3_rag.backends.transformers.elementwise import EAGER
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompt, common_prefix
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OF_ITS_OWN: dict[str, Any] = {"dtype": "float32", "device": "cpu", "token_budget": 99_998}
"""Settings that no other test has: equal ones share an engine, whose weights may be packed."""

PASSAGES = [f"Passage number {i} says that the sun is {i * 7} light minutes away. " * 3 for i in range(100)]


@pytest.fixture(autouse=True)
def weights_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed ones gate and add without a call of their module, and rows are filled for them."""
    monkeypatch.setattr(packed_linear, "packing_works", lambda _: False)


@contextmanager
def tokens_through(component: Embedder | Reranker, module: str) -> Iterator[list[int]]:
    """Rows that reach a module of the decoder, one entry per call of it."""
    backend: Any = component.load().backend
    counted: list[int] = []
    decoder = backend._model.decoder
    hook = decoder.get_submodule(module).register_forward_pre_hook(lambda _, args: counted.append(len(args[0])))
    backend._decoder = Decoder(decoder, EAGER)  # how a module multiplies was looked up before it had the hook
    try:
        yield counted
    finally:
        hook.remove()


FIRST_LAYER = "layers.0.self_attn.q_proj"


def test_a_query_and_100_passages_compute_the_prefix_once(reranking_checkpoint: Path) -> None:
    reranker = Reranker(str(reranking_checkpoint), **OF_ITS_OWN)
    tokenizer = PromptTokenizer(Tokenizer.from_file(str(reranking_checkpoint / "tokenizer.json")))
    pairs = [("How far is the sun?", passage) for passage in PASSAGES]
    prompts = tokenizer.encode_pairs(pairs, instruction=DEFAULT_INSTRUCTION, max_tokens=8192).token_ids
    shared = min(common_prefix(prompts[0], prompt) for prompt in prompts[1:])
    with (
        reranker,
        tokens_through(reranker, "embed_tokens") as batches,
        tokens_through(reranker, FIRST_LAYER) as counted,
    ):
        usage = reranker.evaluate(pairs).usage
        assert sum(counted) <= shared + sum(len(prompt) - shared for prompt in prompts)
        assert sum(counted) == usage.computed_tokens
    assert usage.prompt_tokens == sum(map(len, prompts))
    assert len(batches) == 1


def test_rounds_of_a_long_call_are_one_batch_each(reranking_checkpoint: Path) -> None:
    """Each round computes the shared prefix again, and must leave room for it."""
    with Reranker(str(reranking_checkpoint), dtype="float32", device="cpu", token_budget=1000) as reranker:
        with tokens_through(reranker, "embed_tokens") as batches:
            reranker.score("How far is the sun?", PASSAGES)
        assert len(batches) == reranker.metrics.rounds > 3


def test_the_call_that_loads_the_model_shares_prefixes_too(reranking_checkpoint: Path) -> None:
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "token_budget": 99_999}
    with Reranker(str(reranking_checkpoint), **options) as reranker:
        pairs = [("How far is the sun?", passage) for passage in PASSAGES]
        first, second = reranker.evaluate(pairs).usage, reranker.evaluate(pairs).usage
    assert first == second


@pytest.mark.parametrize("module", ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj"])
def test_the_last_layer_computes_only_what_is_read(module: str, embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), **OF_ITS_OWN)
    last = len(embedder.load().backend._model.decoder.layers) - 1  # type: ignore[union-attr]
    with embedder, tokens_through(embedder, f"layers.{last}.{module}") as counted:
        embedder.embed_documents(PASSAGES)
    assert sum(counted) == len(PASSAGES)


def test_queries_of_a_call_compute_their_instruction_once(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), **OF_ITS_OWN)
    with embedder, tokens_through(embedder, FIRST_LAYER) as counted:
        usage = embedder.embed([f"q{i}" for i in range(50)], role="query").usage
    assert sum(counted) == usage.computed_tokens < usage.prompt_tokens / 3


class _NoVocabulary(TorchDispatchMode):
    """Fails on any operation whose result has a dimension as long as the vocabulary."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if VOCABULARY in getattr(tensor, "shape", ()):
                raise AssertionError(f"{func} made a tensor of shape {tuple(tensor.shape)}")
        return result


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_nothing_as_long_as_the_vocabulary_is_made(
    kind: str, reranking_checkpoint: Path, embedding_checkpoint: Path
) -> None:
    component: Any = (
        Embedder(str(embedding_checkpoint), device="cpu")
        if kind == "embedding"
        else Reranker(str(reranking_checkpoint), device="cpu")
    )
    with component.load():
        words = EmbeddingWords("", "unused", is_query=False)
        prompts = [Prompt(np.arange(length, dtype=np.int32), words) for length in (5, 9)]
        with _NoVocabulary():
            component.backend.run(prompts)


def test_the_vocabulary_watch_notices_a_full_head(reranking_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(reranking_checkpoint)
    with pytest.raises(AssertionError, match=str(VOCABULARY)), _NoVocabulary(), torch.inference_mode():
        model(input_ids=torch.arange(5)[None])


MEMORY_SCRIPT = """
import re, sys
from pathlib import Path
from qwen3_rag import Embedder, Reranker

def resident(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

kind, folder = sys.argv[1:]
if kind == "pairs":
    component = Reranker(folder, dtype="float32", device="cpu").load()
    component.score("warm", ["up"])
    documents = [f"{i} " + "word " * 930 for i in range(128)]
else:
    component = Embedder(folder, dtype="float32", device="cpu", max_tokens=32768).load()
    component.embed_documents(["warm up"])
    documents = [" word" * 32767]
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from loading
if kind == "pairs":
    component.score("why?", documents)
else:
    usage = component.embed(documents, role="document").usage
    assert usage.prompt_tokens == 32768 and usage.truncated_texts == 0, usage
print(resident("VmHWM") - before)
"""

PAIRS_BOUND = 128 << 20
"""Bytes above weights and warm-up for 128 pairs of 1,000 tokens: far below the 78 GB that float32
logits of every position would take; most of it is one batch's activations and allocator slack."""
DOCUMENT_BOUND = 320 << 20
"""Bytes for one document of 32,768 tokens; one float32 mask or score matrix of it would be 4 GiB."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure a peak")
@pytest.mark.parametrize(("kind", "bound"), [("pairs", PAIRS_BOUND), ("document", DOCUMENT_BOUND)])
def test_memory_stays_bounded(
    kind: str, bound: int, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    folder = reranking_checkpoint if kind == "pairs" else embedding_checkpoint
    command = [sys.executable, "-c", MEMORY_SCRIPT, kind, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    used = int(run.stdout.split()[-1])
    print(f"{kind}: {used / 2**20:.0f} MiB above the weights")
    assert used < bound
