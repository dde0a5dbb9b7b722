"""Verification of a server."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.server_names import Send, ServerName, TemplateSide
from qwen3_rag.verification.connection import AnswerError
from qwen3_rag.verification.diagnosis import finding
from qwen3_rag.verification.endpoint import Endpoint, as_floats
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.report import Check, Report
from qwen3_rag.verification.reranking_faults import are_symmetric
from qwen3_rag.verification.routes import Route, routes
from qwen3_rag.verification.subject import ASKED_ALONE, Input, Subject
from qwen3_rag.verification.texts import PAIRS


@dataclass(frozen=True)
class Ways:
    """How a server is asked.

    Attributes:
        endpoint: the server.
        server: what it speaks.
        served_model: the model's name there; None where none is sent.
        routes: the ways of asking, at least one.
        text_is_note: whether what text gives does not count.
    """

    endpoint: Endpoint
    server: ServerName
    served_model: str | None
    routes: tuple[Route, ...]
    text_is_note: bool


def find_ways(
    endpoint: Endpoint,
    kind: ModelKind,
    *,
    server: ServerName | None,
    model: str,
    served_model: str | None,
    send: Send,
    template: TemplateSide,
    instruction: str | None,
    dimensions: int | None,
) -> Ways:
    """Find out what a server is and how it can be asked, before minutes are spent on what is right.

    Args:
        endpoint: the server.
        kind: what is asked for.
        server: what it speaks; None finds out.
        model: the checkpoint's name.
        served_model: its name at the server; None finds it in the server's list.
        send: "ids" and "text" ask in those ways only. "auto" counts token ids where the server takes them,
            as this package sends them there, and notes what text gives.
        template: who renders rerank prompts that are sent as text.
        instruction: as `make_subject`.
        dimensions: as `make_subject`.

    Raises:
        OSError: the server cannot be reached, or does not answer.
        ConfigurationError: it lists several models of other names, or `server`, `kind`, `send` and
            `dimensions` leave no way to ask.
    """
    endpoint.check_reachable()
    spoken = endpoint.detect(kind) if server is None else server
    name = served_model
    if name is None and spoken != "tei":  # which serves one model, and is asked for none
        name = endpoint.model_name(model)
    ways = routes(
        endpoint.url,
        spoken,
        kind,
        model=model if name is None else name,
        template=template,
        instruction=DEFAULT_INSTRUCTION if instruction is None else instruction,
        dimensions=dimensions,
    )
    if send in ("ids", "text"):
        ways = [way for way in ways if way.takes_ids == (send == "ids")]
    if not ways:
        raise ConfigurationError(f"--send {send}: a server of kind {spoken} takes no {send}")
    text_is_note = send == "auto" and any(way.takes_ids for way in ways)
    return Ways(endpoint, spoken, name, tuple(ways), text_is_note)


def verify_endpoint(subject: Subject, ways: Ways, *, model: str) -> Report:
    """Ask a server in all these ways, and compare.

    Args:
        subject: what is right.
        ways: of its kind and instruction.
        model: the checkpoint's name.

    Raises:
        OSError: the server does not answer, or keeps saying that it is busy.
        ConfigurationError: it wants another key or URL.
    """
    checks = tuple(
        replace(_ask(subject, ways.endpoint, way), is_note=ways.text_is_note and not way.takes_ids)
        for way in ways.routes
    )
    target = f"{ways.endpoint.url} ({ways.server})"
    return Report(target, model, subject.kind, checks, ways.served_model)


def _ask(subject: Subject, endpoint: Endpoint, way: Route) -> Check:
    try:
        together = endpoint.ask(way, subject.inputs)
        alone = endpoint.ask(way, subject.inputs[:ASKED_ALONE], at_once=1)
        answered = as_floats([*together, *alone], subject.kind)
        check = subject.check(way.name, answered[: len(together)], answered[len(together) :])
        if [one.fault for one in check.findings] != ["unexplained"] or way.takes_ids:
            return check
        if subject.kind == "embedding" or not _answers_cosines(endpoint, way, answered[: len(PAIRS)]):
            return check
    except AnswerError as error:
        found = finding(error.fault, error.detail)
        return Check(way.name, 0, 0, None, subject.measure, subject.tolerance, (found,))
    found = finding("cosine", "they are the same when query and document are swapped, whichever the model is")
    return replace(check, findings=(found,))


def _answers_cosines(endpoint: Endpoint, way: Route, answered: Floats) -> bool:
    """Ask for the short pairs with query and document swapped: a reranker tells the two apart."""
    swapped = [Input((document, query), []) for query, document in PAIRS]
    return are_symmetric(answered, as_floats(endpoint.ask(way, swapped), "reranking"))
