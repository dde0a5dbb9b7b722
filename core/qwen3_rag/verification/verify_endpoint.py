"""Verification of a server, by each way of asking it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwen3_rag.backends.remote.options import check_path
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
    """A server and the ways of asking it.

    Attributes:
        endpoint: the server.
        server: what it speaks.
        served_model: the model's name there; None if none is sent.
        routes: at least one.
        text_is_note: whether results of text are noted only, and do not count.
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
    path: str | None,
    instruction: str | None,
    instruction_field: str | None,
    dimensions: int | None,
) -> Ways:
    """Find out what a server speaks and how it can be asked. Quick, so call it before `make_subject`.

    Args:
        endpoint: the server.
        kind: of the model.
        server: what it speaks; None finds out.
        model: the checkpoint's name.
        served_model: its name at the server; None finds it in the server's list.
        send: "ids" and "text" ask in those ways only, "both" in all. "auto" asks in all; where the server takes
            token ids, which this package would send, only those count, and the results of text are noted.
        template: who renders rerank prompts that are sent as text.
        path: what is put after the base URL in place of the server's usual path; None for that.
        instruction: as `make_subject`.
        instruction_field: member of rerank requests for the instruction where the server renders the template;
            None if it always uses the default one.
        dimensions: as `make_subject`.

    Raises:
        OSError: the server cannot be reached, or does not answer.
        ConfigurationError: it lists several models of other names, or the options leave no way to ask, or none
            by which the server would learn of `instruction`.
    """
    if path is not None:
        check_path(path, "--path")
    endpoint.check_reachable()
    spoken = endpoint.detect(kind) if server is None else server
    name = None
    if spoken != "tei":  # TEI serves one model, and requests name none.
        name = endpoint.model_name(model) if served_model is None else served_model
    ways = routes(
        endpoint.url,
        spoken,
        kind,
        model=model if name is None else name,
        template=template,
        instruction=DEFAULT_INSTRUCTION if instruction is None else instruction,
        instruction_field=instruction_field,
        dimensions=dimensions,
    )
    if send in ("ids", "text"):
        ways = [way for way in ways if way.takes_ids == (send == "ids")]
    if not ways:
        raise ConfigurationError(f"--send {send}: a server of kind {spoken} takes no {send}")
    text_is_note = send == "auto" and any(way.takes_ids for way in ways)
    if instruction not in (None, DEFAULT_INSTRUCTION):
        ways = _that_tell_the_instruction(ways, text_is_note)
    if path is not None:
        ways = _at_path(ways, endpoint.url, path)
    return Ways(endpoint, spoken, name, tuple(ways), text_is_note)


def verify_endpoint(subject: Subject, ways: Ways, *, model: str) -> Report:
    """Ask a server for the subject's inputs in all ways, and compare.

    Args:
        subject: the inputs, and what is right for them.
        ways: found for the subject's kind and instruction.
        model: the checkpoint's name.

    Raises:
        OSError: the server does not answer, or stays busy.
        ConfigurationError: it requires another key, or redirects to another URL.
    """
    checks = tuple(
        replace(_ask(subject, ways.endpoint, way), is_note=ways.text_is_note and not way.takes_ids)
        for way in ways.routes
    )
    target = f"{ways.endpoint.url} ({ways.server})"
    return Report(target, model, subject.kind, checks, ways.served_model)


def _that_tell_the_instruction(ways: list[Route], text_is_note: bool) -> list[Route]:
    """Return the ways by which the server learns of the instruction; others could only be wrong.

    Raises:
        ConfigurationError: a way that would count does not tell it.
    """
    untold = [way for way in ways if not way.tells_instruction]
    if untold and not text_is_note:
        raise ConfigurationError(
            f"--instruction: the server renders the template of {untold[0].name}, and is not told of another "
            "instruction than the default one; name the request's member for it with --instruction-field, or "
            "leave --instruction out"
        )
    return [way for way in ways if way.tells_instruction]


def _at_path(ways: list[Route], url: str, path: str) -> list[Route]:
    if len({way.url for way in ways}) > 1:
        raise ConfigurationError(
            "--path: token ids and text go to different paths; add --send ids or --send text"
        )
    return [replace(way, service=f"POST {path}", url=url + path) for way in ways]


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
    """Whether scores of the short pairs stay when query and document are swapped. A reranker's would not."""
    swapped = [Input((document, query), []) for query, document in PAIRS]
    return are_symmetric(answered, as_floats(endpoint.ask(way, swapped), "reranking"))
