"""`qwen3-rag demo`."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qwen3_rag.cli import options
from qwen3_rag.embedder import Embedder
from qwen3_rag.reranker import Reranker

if TYPE_CHECKING:
    from qwen3_rag.demo.session import Session

UNTRAINED_BOTH: Final = (
    "These models are untrained, made a moment ago to show how things work: the order found comes from "
    "shared words alone, and the reranker's scores are meaningless."
)
UNTRAINED_EMBEDDER: Final = "The embedder is untrained: its order comes from shared words alone."
UNTRAINED_RERANKER: Final = "The reranker is untrained: its scores are meaningless."

THE_REAL_THING: Final = "qwen3-rag demo --model Qwen/Qwen3-Embedding-0.6B --reranker Qwen/Qwen3-Reranker-0.6B"

IN_YOUR_PROJECT: Final = """\
from qwen3_rag import Embedder, Reranker
vectors = Embedder().embed_documents(texts)
ranking = Reranker().rerank(question, texts, top_k=5)"""


def demo(
    model: Annotated[
        str | None, typer.Option(help="Embedding model; an untrained stand-in by default.")
    ] = None,
    reranker: Annotated[
        str | None, typer.Option(help="Reranking model; an untrained stand-in by default.")
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="File, or folder of .txt, .md and .py files; the docs of your Python by default."),
    ] = None,
    passages: Annotated[int, typer.Option(min=1, help="Most passages to index.")] = 1000,
    question: Annotated[list[str] | None, typer.Option(help="What to ask; repeat it to ask more.")] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Search your own Python's documentation: index, ask, rerank. Downloads nothing by default."""
    from qwen3_rag.cli.progress import hide_library_bars
    from qwen3_rag.demo.corpus import file_passages, standard_library_passages
    from qwen3_rag.demo.session import QUESTIONS, run_session

    found = standard_library_passages(passages) if corpus is None else file_passages(corpus, passages)
    questions = list(dict.fromkeys(question or QUESTIONS))
    if as_json or (model is None and reranker is None):
        hide_library_bars()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qwen3-rag-demo-")))
        embedding_model, reranking_model = _with_stand_ins(folder, found, model, reranker)
        session = run_session(
            found,
            questions,
            stack.enter_context(Embedder(embedding_model, device=device)),
            stack.enter_context(Reranker(reranking_model, device=device)),
            progress=sys.stderr.isatty() and not as_json,
        )
    notice = _notice(model, reranker)
    if as_json:
        print(json.dumps(_as_dict(session, found, notice, model, reranker), ensure_ascii=False, indent=2))
    else:
        _show(session, found, notice)


def _with_stand_ins(
    folder: Path, passages: list[str], model: str | None, reranker: str | None
) -> tuple[str, str]:
    """Return both models, made on the spot where none is named."""
    if model is not None and reranker is not None:
        return model, reranker
    from qwen3_rag.demo.tokenizer import train_tokenizer
    from qwen3_rag.demo.untrained import save_random_checkpoint, save_word_embedder

    tokenizer = train_tokenizer(passages)
    for name in ("embedder", "reranker"):
        (folder / name).mkdir()
    if model is None:
        model = str(save_word_embedder(folder / "embedder", tokenizer, passages))
    if reranker is None:
        reranker = str(save_random_checkpoint(folder / "reranker", tokenizer, causal=True))
    return model, reranker


def _notice(model: str | None, reranker: str | None) -> str | None:
    if model is None and reranker is None:
        return UNTRAINED_BOTH
    if model is None:
        return UNTRAINED_EMBEDDER
    return UNTRAINED_RERANKER if reranker is None else None


def _as_dict(
    session: Session, passages: list[str], notice: str | None, model: str | None, reranker: str | None
) -> dict[str, object]:
    return {
        "notice": notice,
        "model": model,
        "reranker": reranker,
        "passages": len(passages),
        "answers": [
            {
                "question": question,
                "hits": [{**asdict(hit), "text": passages[hit.passage]} for hit in hits],
            }
            for question, hits in session.answers.items()
        ],
        "steps": [
            {
                "name": step.name,
                **asdict(step.usage),
                "reused_tokens": step.usage.reused_tokens,
                "seconds": step.seconds,
            }
            for step in session.steps
        ],
    }


def _show(session: Session, passages: list[str], notice: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.panel import Panel
    from rich.table import Table

    from qwen3_rag.cli.rerank import one_line

    console = Console()
    if notice is not None:
        console.print(Panel(escape(notice), title="untrained models", border_style="yellow"))
        console.print("The real thing:")
        print(f"{THE_REAL_THING}\n")
    for question, hits in session.answers.items():
        table = Table(title=escape(question), title_justify="left", expand=True)
        for heading in ("found", "cosine", "reranked", "P(yes)"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("passage", ratio=1, no_wrap=True, overflow="ellipsis")
        for place, hit in enumerate(hits, 1):
            table.add_row(
                str(place),
                f"{hit.similarity:.3f}",
                str(hit.reranked),
                f"{hit.score:.3f}",
                one_line(passages[hit.passage]),
            )
        console.print(table)
    table = Table(title="what it cost", title_justify="left")
    for heading in ("step", "texts", "tokens", "computed", "reused", "seconds", "texts/s"):
        table.add_column(heading, justify="left" if heading == "step" else "right", no_wrap=True)
    for step in session.steps:
        usage = step.usage
        table.add_row(
            step.name,
            str(usage.texts),
            str(usage.prompt_tokens),
            str(usage.computed_tokens),
            str(usage.reused_tokens),
            f"{step.seconds:.2f}",
            f"{usage.texts / step.seconds:.0f}",
        )
    console.print(table)
    console.print('"reused": tokens of a beginning that prompts share, computed once.', style="dim")
    console.print("\nIn your own project:\n")
    print(IN_YOUR_PROJECT)
