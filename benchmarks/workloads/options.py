"""Our own settings against each other, made for GPUs: which of them should be the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import torch
from qwen3_rag import Embedder, Reranker
from qwen3_rag.models import ModelKind

from benchmarks import texts
from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.flops import embedding_work
from benchmarks.peak import peak_above
from benchmarks.peers.ours import DEFAULT
from benchmarks.peers.snippets import EmbeddingSnippet, Pair
from benchmarks.timing import in_turn, summary
from benchmarks.ways import OURS, Floats, Peer, clocked
from benchmarks.workloads import Bench, PeerBench, Result
from benchmarks.workloads.bulk import token_counts
from benchmarks.workloads.reranking import work_of
from benchmarks.workloads.single import latency

_BUDGETS: Final = (4096, 8192, 16384, 32768, 65536, 131072)
_BUCKET: Final = 64
"""Tokens that a query is padded to, so that one CUDA graph serves all."""
_PASSAGES: Final = 20
"""Of each query."""
_GRAPHED: Final = {
    "cuda_graphs=True": {"cuda_graphs": True},
    "cuda_graphs=True, compile=True": {"cuda_graphs": True, "compile": True},
}
"""Setting -> `model_kwargs`."""
_KERNELS: Final = "qwen3_rag.backends.transformers.backend.find_varlen_kernel"


def packing(bench: PeerBench) -> Result:
    """Packed rows with the varlen kernel, and with SDPA text by text; padded batches of them are in bulk."""
    given = texts.mixed(bench.sizes.texts)
    with ExitStack() as stack:
        with patch(_KERNELS, return_value=None):
            # An engine of its own: one of equal settings would be shared.
            by_text = Embedder(**_arguments(bench, "embedding"), max_queued=1023).load()
        stack.callback(by_text.close)
        name = "packed, SDPA text by text"
        by_text.embed_documents(given)  # cuDNN plans anew for each length, for some 40 ms
        peers = [*bench.only(OURS), Peer(name, {DEFAULT: clocked(by_text.embed_documents)}, DEFAULT)]
        found = bench.comparison.run(peers, given)
    work = embedding_work(bench.setup.model("embedding"), token_counts(bench, given))
    return Result(found, [(found["ways"], work)])


def sharing(bench: PeerBench) -> Result:
    """Reranking with what a query's prompts have in common computed once, and for each: short passages."""
    return _sharing(bench, texts.pairs(bench.sizes.many, _PASSAGES))


def sharing_long(bench: PeerBench) -> Result:
    """The same with passages of 512 tokens and a fifth of the queries: what is shared is a small part there."""
    return _sharing(bench, texts.pairs(max(1, bench.sizes.many // 5), _PASSAGES, (480, 544)))


def _sharing(bench: PeerBench, pairs: list[Pair]) -> Result:
    with ExitStack() as stack:
        alone = stack.enter_context(Reranker(**_arguments(bench, "reranking"), share_prefixes=False))
        apart = Peer("share_prefixes=False", {DEFAULT: clocked(alone.score_pairs)}, DEFAULT)
        found = bench.comparison.run([*bench.only(OURS), apart], pairs)
    return Result(found, [(found["ways"], work_of(bench, pairs)[1])])


def budget(bench: Bench) -> Result:
    """Token budgets: seconds and peak memory, one after the other, each with an engine of its own."""
    given = texts.mixed(bench.sizes.texts)
    ways = []
    for tokens in _BUDGETS:
        with Embedder(**_arguments(bench, "embedding"), token_budget=tokens) as embedder:
            run = clocked(embedder.embed_documents)
            run(given[:8])
            _, peak = peak_above(partial(run, given), bench.setup.device)
            seconds, _ = in_turn({"": partial(run, given)}, {"": bench.sizes.rounds}, float("inf"))
            way = {"peer": OURS, "setting": f"token_budget={tokens}", "peak_mib": round(peak / 2**20, 1)}
            ways.append({**way, **summary(seconds[""], seconds[""])})
    work = embedding_work(bench.setup.model("embedding"), token_counts(bench, given))
    return Result({"ways": ways}, [(ways, work)])


def graphs(bench: PeerBench) -> Result:
    """One query at a time: ours, Hugging Face's model, and both with CUDA graphs, where there are any."""
    snippet = EmbeddingSnippet(bench.setup)
    compiled: Any = torch.compile(snippet.model, mode="reduce-overhead", dynamic=False)

    @torch.inference_mode()
    def embed(given: Sequence[str]) -> Floats:
        batch = snippet.tokenizer(
            [QUERY_PROMPT + text for text in given],
            padding="max_length",
            max_length=_BUCKET,
            return_tensors="pt",
        ).to(bench.setup.device)
        state = compiled(**batch, use_cache=False).last_hidden_state[:, -1]
        vectors: Floats = torch.nn.functional.normalize(state, dim=1).float().cpu().numpy()
        return vectors

    def one_by_one(given: Sequence[str]) -> list[Floats]:
        return [embed([text])[0] for text in given]

    name = "Hugging Face, compiled with CUDA graphs"
    graphed = Peer(name, {}, queries={f"{_BUCKET} tokens": clocked(one_by_one)})
    peers = [*bench.only(OURS, "published snippet"), graphed]
    with ExitStack() as stack:
        stack.callback(torch.compiler.reset)  # else it keeps the weights
        for setting, model_kwargs in _GRAPHED.items() if bench.setup.device.type == "cuda" else ():
            options = {**_arguments(bench, "embedding"), "model_kwargs": model_kwargs}
            ours = stack.enter_context(Embedder(**options))
            peers.append(Peer(f"{OURS}, {setting}", {}, queries={DEFAULT: clocked(partial(_each, ours))}))
        return latency(PeerBench(bench.setup, bench.sizes, bench.comparison, peers))


def _each(embedder: Embedder, given: Sequence[str]) -> list[Floats]:
    return [embedder.embed_queries([text])[0] for text in given]


def _arguments(bench: Bench, kind: ModelKind) -> dict[str, Any]:
    setup = bench.setup
    return {"model": str(setup.checkpoint(kind)), "device": str(setup.device), "dtype": setup.dtype_name}
