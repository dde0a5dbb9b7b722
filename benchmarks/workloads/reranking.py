"""Passages of a query, and of many queries."""

from __future__ import annotations

from typing import Final

from transformers import AutoTokenizer

from benchmarks import texts
from benchmarks.flops import Work, reranking_work
from benchmarks.peers.snippets import Pair, rerank_token_ids
from benchmarks.ways import OURS
from benchmarks.workloads import PeerBench, Result

_PASSAGES_OF_MANY: Final = 20
_DOCUMENTS: Final = (1, 10, 30)
_ROUNDS_OF_A_NUMBER: Final = 3


def one_query(bench: PeerBench) -> Result:
    """One query and passages of 40 to 80 tokens; every peer at its default and at its best batch size."""
    pairs = texts.pairs(1, bench.sizes.passages)
    found = bench.comparison.run(bench.peers, pairs, sweep=True)
    prompts, work = work_of(bench, pairs)
    return Result(
        {"documents": len(pairs), "prompts": texts.lengths_summary(prompts), **found}, [(found["ways"], work)]
    )


def many_queries(bench: PeerBench) -> Result:
    """Queries with 20 passages each, in one call; CrossEncoder and vLLM at the settings found before."""
    pairs = texts.pairs(bench.sizes.many, _PASSAGES_OF_MANY)
    found = bench.comparison.run(bench.only(OURS, "CrossEncoder", "vLLM"), pairs, defaults=False)
    prompts, work = work_of(bench, pairs)
    data = {"queries": bench.sizes.many, "passages": _PASSAGES_OF_MANY, **found}
    return Result({**data, "prompts": texts.lengths_summary(prompts)}, [(found["ways"], work)])


def documents(bench: PeerBench) -> Result:
    """What a query costs by its number of passages, at the settings found before."""
    peers = bench.only(OURS, "CrossEncoder", "published snippet, last", "vLLM")
    points, shares = [], []
    for count in _DOCUMENTS:
        pairs = texts.pairs(1, count)
        found = bench.comparison.run(peers, pairs, defaults=False, rounds=_ROUNDS_OF_A_NUMBER)
        points.append({"documents": count, **found})
        shares.append((found["ways"], work_of(bench, pairs)[1]))
    return Result({"points": points}, shares)


def work_of(bench: PeerBench, pairs: list[Pair]) -> tuple[list[int], Work]:
    """Tokens of each pair's prompt, and the work of all."""
    tokenizer = AutoTokenizer.from_pretrained(bench.setup.checkpoint("reranking"))
    prompts = rerank_token_ids(tokenizer, pairs)
    return [len(prompt) for prompt in prompts], reranking_work(bench.setup.model("reranking"), prompts)
