"""What `qwen3-rag demo` shows in a terminal of 80 columns or more."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen3_rag.checkpoint import DEMO_MODEL
from qwen3_rag.cli.output import replace_unencodable_characters
from qwen3_rag.cli.rerank import one_line
from qwen3_rag.demo.searches import CORE, FRAMEWORKS, Models, lines_of_code
from qwen3_rag.demo.session import CANDIDATES, Agreement, Run, compare

SHOWN: Final = 5
"""Passages that are shown for each question. Chosen, not tuned."""

WIDEST: Final = 110
"""Columns of the widest output; longer lines are hard to read. Chosen, not tuned."""

NOTICE: Final = (
    "The demo models have 3 million parameters: for trying out only, English only. "
    "The published ones are one argument away:"
)
PUBLISHED: Final = "qwen3-rag demo --model Qwen/Qwen3-Embedding-0.6B --reranker Qwen/Qwen3-Reranker-0.6B"
ADD_FRAMEWORKS: Final = 'No framework is installed; pip install "qwen3-rag[all]" brings all three.'


def show(runs: list[Run], passages: list[str], models: Models) -> None:
    """Print the answers of the first run, how the others compare, what it cost, and lines of code."""
    replace_unencodable_characters()
    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDEST))
    console.print(
        f"{len(passages):,} passages. Each question retrieves {CANDIDATES} by cosine, and the reranker orders "
        f'them by P(yes). Shown are the first {SHOWN} of both; "was": the place before reranking.\n'
    )
    for question in runs[0].answers:
        console.print(_answer_table(runs[0], question, passages), "")
    console.print(_frameworks_table(runs), "")
    for line in _conclusions(runs):
        console.print(line)
    console.print(_tokens_table(runs[0]), "")
    console.print("Tokens are saved by computing the common prefixes of prompts once.\n")
    if DEMO_MODEL in (models.embedding, models.reranking):
        console.print(NOTICE)
        print(f"  {PUBLISHED}\n")
    print("In your own project:")
    for run in runs:
        print(f"\n# {_name(run)}\n{_code(run, models)}")


def _answer_table(run: Run, question: str, passages: list[str]) -> Table:
    table = _table(escape(question), expand=True)
    table.add_column("cos", justify="right", no_wrap=True)
    table.add_column("retrieved", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("yes", justify="right", no_wrap=True)
    table.add_column("was", justify="right", no_wrap=True)
    table.add_column("reranked", ratio=1, no_wrap=True, overflow="ellipsis")
    answer = run.answers[question]
    places = {item.passage: place for place, item in enumerate(answer.retrieved, 1)}
    for left, right in zip(answer.retrieved[:SHOWN], answer.reranked[:SHOWN], strict=True):
        table.add_row(
            f"{left.score:.2f}",
            one_line(passages[left.passage]),
            f"{right.score:.2f}",
            str(places[right.passage]),
            one_line(passages[right.passage]),
        )
    return table


def _frameworks_table(runs: list[Run]) -> Table:
    table = _table("seconds")
    table.add_column("framework", no_wrap=True)
    table.add_column("package", no_wrap=True)
    for heading in runs[0].steps:
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(_name(run), run.release, *(f"{step.seconds:.2f}" for step in run.steps.values()))
    return table


def _conclusions(runs: list[Run]) -> list[str]:
    first, *others = runs
    if not others:
        return [escape(ADD_FRAMEWORKS) if first.framework == CORE else f"Only {_name(first)} is installed.", ""]
    agreements = {_name(run): compare(first, run) for run in others}
    names = [_name(run) for run in runs]
    if all(agreement.complete for agreement in agreements.values()):
        largest = max(agreement.cosine_difference for agreement in agreements.values())
        return [
            f"{', '.join(names[:-1])} and {names[-1]} agree on all {len(first.answers)} questions: the same "
            f"passages in the same order, P(yes) the same bit for bit, cosines to {largest:.0e}.",
            "",
        ]
    return [
        *(f"[red]{name} differs from {names[0]}: {_faults(found)}.[/]" for name, found in agreements.items()),
        "",
    ]


def _faults(agreement: Agreement) -> str:
    faults = [
        *([] if agreement.retrieved else ["other passages retrieved"]),
        *([] if agreement.reranked else ["another order after reranking"]),
        *([] if agreement.scores else ["other scores"]),
        f"cosines by up to {agreement.cosine_difference:.0e}",
    ]
    return ", ".join(faults)


def _tokens_table(run: Run) -> Table:
    table = _table("tokens")
    for heading in ("step", "texts", "of prompts", "computed", "saved"):
        table.add_column(heading, justify="left" if heading == "step" else "right", no_wrap=True)
    for name, step in run.steps.items():
        usage = step.usage
        table.add_row(
            name,
            f"{usage.texts:,}",
            f"{usage.prompt_tokens:,}",
            f"{usage.computed_tokens:,}",
            f"{usage.reused_tokens / max(usage.prompt_tokens, 1):.0%}",
        )
    return table


def _table(title: str, *, expand: bool = False) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        expand=expand,
    )


def _name(run: Run) -> str:
    return FRAMEWORKS.get(run.framework, "qwen3-rag alone")


def _code(run: Run, models: Models) -> str:
    """Return lines for the models chosen; the demo's are not for real work, so theirs name the defaults."""
    embedding, reranking = (
        None if model == DEMO_MODEL else model for model in (models.embedding, models.reranking)
    )
    return lines_of_code(run.framework, embedding, reranking)
