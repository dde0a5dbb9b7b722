"""`qwen3-rag demo`: a search through every framework that is installed, on any machine, offline."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qwen3_rag.checkpoint import DEMO_MODEL
from qwen3_rag.cli import options
from qwen3_rag.cli.exit_codes import CHECK_FAILED
from qwen3_rag.cli.output import print_json
from qwen3_rag.errors import ConfigurationError

if TYPE_CHECKING:
    from qwen3_rag.demo.searches import Models
    from qwen3_rag.demo.session import Run

PASSAGES: Final = 5000
"""Most passages with the demo model: all of the standard library's, but not all of a large folder."""

PASSAGES_OF_OTHERS: Final = 300
"""Most passages with another model. On a CPU a published one takes minutes for these, once per framework."""


def demo(
    model: Annotated[
        str, typer.Option(help="Embedding model: a hub repository or folder; by default the small demo model.")
    ] = DEMO_MODEL,
    reranker: Annotated[
        str, typer.Option(help="Reranking model: a hub repository or folder; by default the small demo model.")
    ] = DEMO_MODEL,
    corpus: Annotated[
        Path | None,
        typer.Option(help="File, or folder of .txt, .md and .py files; the docs of your Python by default."),
    ] = None,
    passages: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Most passages to index; {PASSAGES} by default, {PASSAGES_OF_OTHERS} with another --model.",
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(help="What to ask; repeat it to ask more.", callback=options.check_text),
    ] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Search your own Python's documentation through LangChain, LlamaIndex and Haystack, those installed.

    The exit code is 1 if they do not all find the same.
    """
    from qwen3_rag.cli.library_bars import hide_library_bars
    from qwen3_rag.demo.searches import Models, installed_frameworks
    from qwen3_rag.demo.session import QUESTIONS, compare, run_session

    if as_json or model == reranker == DEMO_MODEL:
        hide_library_bars()
    if any(not asked.strip() for asked in question or ()):
        raise ConfigurationError("--question must not be blank")
    limit = passages if passages is not None else PASSAGES if model == DEMO_MODEL else PASSAGES_OF_OTHERS
    found = _passages(corpus, limit)
    questions = list(dict.fromkeys(question if question else QUESTIONS))
    models = Models(model, reranker, device)
    runs = run_session(found, questions, installed_frameworks(), models, report=_report)
    if as_json:
        print_json(_as_dict(runs, found, models))
    else:
        from qwen3_rag.cli.demo_tables import show

        show(runs, found, models)
    if not all(compare(runs[0], run).complete for run in runs):
        raise typer.Exit(CHECK_FAILED)


def _passages(corpus: Path | None, limit: int) -> list[str]:
    from qwen3_rag.demo.corpus import file_passages, standard_library_passages

    found = standard_library_passages(limit) if corpus is None else file_passages(corpus, limit, report=_report)
    return list(dict.fromkeys(found))


def _report(line: str) -> None:
    print(line, file=sys.stderr)


def _as_dict(runs: list[Run], passages: list[str], models: Models) -> dict[str, Any]:
    from qwen3_rag.demo.session import compare

    return {
        "model": models.embedding,
        "reranker": models.reranking,
        "passages": len(passages),
        "frameworks": [
            {
                "framework": run.framework,
                "release": run.release,
                "agreement": asdict(compare(runs[0], run)),
                "answers": [
                    {
                        "question": question,
                        **{
                            stage: [{**asdict(item), "text": passages[item.passage]} for item in items]
                            for stage, items in (("retrieved", answer.retrieved), ("reranked", answer.reranked))
                        },
                    }
                    for question, answer in run.answers.items()
                ],
                "steps": {
                    name: {
                        **asdict(step.usage),
                        "reused_tokens": step.usage.reused_tokens,
                        "seconds": step.seconds,
                    }
                    for name, step in run.steps.items()
                },
            }
            for run in runs
        ],
    }
