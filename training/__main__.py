"""`python -m training`: make the demo pair, or fine-tune a published one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKING_MODEL

from training.pairs import read_pairs


def main() -> None:
    """Parse arguments and run one command."""
    arguments = parser().parse_args()
    if arguments.command == "demo":
        from training.demo import make_demo_pair

        make_demo_pair(arguments.work, arguments.output)
    elif arguments.command == "evaluate":
        from training.evaluate import print_report

        print_report(arguments.work, arguments.embedder, arguments.reranker)
    elif arguments.command == "embedder":
        from training.embedder import EmbedderSettings
        from training.finetune import finetune_embedder

        finetune_embedder(
            arguments.model,
            read_pairs(arguments.pairs),
            arguments.output,
            replace(EmbedderSettings(), **_given(arguments)),
            instruction=arguments.instruction,
        )
    else:
        from training.finetune import finetune_reranker
        from training.reranker import RerankerSettings

        finetune_reranker(
            arguments.model,
            arguments.embedder,
            read_pairs(arguments.pairs),
            arguments.output,
            replace(RerankerSettings(), **_given(arguments)),
            negatives=arguments.negatives,
            instruction=arguments.instruction,
        )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. Making it imports nothing heavy."""
    top = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="fetch public text and train the demo pair from nothing")
    demo.add_argument("--work", type=Path, default=Path("build/training"), help="folder for data and stages")
    demo.add_argument("--output", type=Path, default=Path("core/qwen3_rag/demo/models"))
    evaluate = commands.add_parser("evaluate", help="score a pair on the held-out task")
    evaluate.add_argument("--work", type=Path, default=Path("build/training"))
    evaluate.add_argument("--embedder", default="core/qwen3_rag/demo/models/demo-embedding")
    evaluate.add_argument("--reranker", default="core/qwen3_rag/demo/models/demo-reranker")
    for command, model in (("embedder", DEFAULT_EMBEDDING_MODEL), ("reranker", DEFAULT_RERANKING_MODEL)):
        tune = commands.add_parser(command, help="fine-tune one on your own pairs, with LoRA")
        tune.add_argument("pairs", type=Path, help="JSONL of objects with query and passage")
        tune.add_argument("output", type=Path, help="folder for the merged checkpoint")
        tune.add_argument("--model", default=model)
        tune.add_argument("--instruction", help="task sentence or preset of your queries")
        tune.add_argument("--steps", type=int)
        tune.add_argument("--batch-size", type=int)
        tune.add_argument("--learning-rate", type=float)
        tune.add_argument("--max-tokens", type=int)
        tune.add_argument("--lora-rank", type=int, help="0 trains all weights")
        tune.add_argument("--seed", type=int)
        if command == "reranker":
            tune.add_argument("--embedder", default=DEFAULT_EMBEDDING_MODEL, help="mines the negatives")
            tune.add_argument("--negatives", type=int, default=7)
    return top


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "batch_size", "learning_rate", "max_tokens", "lora_rank", "seed")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


if __name__ == "__main__":
    main()
