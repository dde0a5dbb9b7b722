"""`qwen3-rag verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qwen3_rag.cli import options
from qwen3_rag.cli.exit_codes import CHECK_FAILED
from qwen3_rag.cli.library_bars import hide_library_bars
from qwen3_rag.cli.output import print_json, replace_unencodable_characters
from qwen3_rag.errors import ConfigurationError, MissingExtraError
from qwen3_rag.instructions import resolve_instruction
from qwen3_rag.models import ModelKind
from qwen3_rag.server_names import Send, ServerName, TemplateSide
from qwen3_rag.settings import DType, EngineSettings

if TYPE_CHECKING:
    from qwen3_rag.verification import Report
    from qwen3_rag.verification.endpoint import Endpoint

TIMEOUT: Final = 120.0
"""Default of --timeout, in seconds. Chosen, not tuned."""


def verify(
    model: Annotated[
        str, typer.Option(help="The checkpoint that the endpoint should be serving; also the local reference.")
    ],
    url: Annotated[str | None, typer.Option(help="Base URL of a server.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="A backend instead; `qwen3-rag plugins` lists the names.")
    ] = None,
    server: Annotated[
        ServerName | None, typer.Option(help="What the server speaks; detected by default.")
    ] = None,
    kind: Annotated[ModelKind | None, typer.Option(help="Detected from --model by default.")] = None,
    send: Annotated[
        Send | None,
        typer.Option(
            help="What must agree: token ids, text as other clients send it, or both; by default ids where the "
            "server takes them, and what text gives is a note."
        ),
    ] = None,
    template: Annotated[
        TemplateSide | None,
        typer.Option(
            help='Who renders rerank prompts sent as text: "server" by default; "client" sends them rendered.'
        ),
    ] = None,
    path: Annotated[
        str | None, typer.Option(help="What is put after the base URL; by default the server's usual path.")
    ] = None,
    served_model: Annotated[
        str | None,
        typer.Option(help="The model's name at the server; by default that of --model, or the only one."),
    ] = None,
    instruction: options.Instruction = None,
    instruction_field: Annotated[
        str | None,
        typer.Option(
            help="The member of a rerank request that tells the server, which renders the template, the "
            "instruction."
        ),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Ask an embedding server for vectors of this length.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Compare texts up to this length too; about 1,400 tokens by default, which is quick.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest distance that passes; by default 0.1 or 0.03.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's API key.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help=f"Most seconds of one request; {TIMEOUT:g} by default.")
    ] = None,
    model_kwargs: options.ModelKwargs = None,
    device: options.Device = None,
    dtype: Annotated[
        DType, typer.Option(help="Weights' type of the local reference, and of --backend.")
    ] = "float32",
    hub: options.Hub = "huggingface",
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Check whether an endpoint or backend gives the right numbers, and say what is wrong if not.

    Fixed texts in several scripts and lengths are sent, and what comes back is compared with the
    model run here. When it differs, the fault that reproduces it is named. Exit code 0 only if all
    agrees, 1 if not, 2 if it could not be asked.
    """
    if (url is None) == (backend is None):
        raise ConfigurationError("give either --url, to verify a server, or --backend, to verify a backend")
    _refuse_of_the_other(
        url,
        of_servers={
            "--server": server,
            "--send": send,
            "--template": template,
            "--path": path,
            "--served-model": served_model,
            "--instruction-field": instruction_field,
            "--dimensions": dimensions,
            "--api-key-env": api_key_env,
            "--timeout": timeout,
        },
        of_backends={"--model-kwargs": model_kwargs},
    )
    given = options.parse_model_kwargs(model_kwargs)
    task = None if instruction is None else resolve_instruction(instruction)
    settings = EngineSettings("embedding", model, device=device, dtype=dtype, hub=hub, revision=revision)
    hide_library_bars()
    if url is not None:
        report = _verify_server(
            settings,
            kind,
            url=url,
            api_key_env=api_key_env,
            timeout=TIMEOUT if timeout is None else timeout,
            server=server,
            served_model=served_model,
            send="auto" if send is None else send,
            template="server" if template is None else template,
            path=path,
            instruction=task,
            instruction_field=instruction_field,
            dimensions=dimensions,
            max_tokens=max_tokens,
            tolerance=tolerance,
        )
    else:
        assert backend is not None, "one of the two is given"
        report = _verify_backend(
            settings,
            kind,
            backend=backend,
            model_kwargs=given,
            instruction=task,
            max_tokens=max_tokens,
            tolerance=tolerance,
        )
    _print(report, as_json)
    if not report.passed:
        raise typer.Exit(CHECK_FAILED)


def _verify_server(
    settings: EngineSettings,
    kind: ModelKind | None,
    *,
    url: str,
    api_key_env: str | None,
    timeout: float,
    server: ServerName | None,
    served_model: str | None,
    send: Send,
    template: TemplateSide,
    path: str | None,
    instruction: str | None,
    instruction_field: str | None,
    dimensions: int | None,
    max_tokens: int | None,
    tolerance: float | None,
) -> Report:
    """Compare a server with the reference; ask the server first: a wrong URL or key shows at once."""
    if find_spec("httpx") is None:
        raise MissingExtraError("qwen3-rag verify --url", "remote")
    from qwen3_rag.verification.reference import Reference
    from qwen3_rag.verification.subject import make_subject
    from qwen3_rag.verification.verify_endpoint import find_ways, verify_endpoint

    with _endpoint(url, api_key_env, timeout) as endpoint:
        settings = _of_kind(settings, kind)
        ways = find_ways(
            endpoint,
            settings.kind,
            server=server,
            model=settings.model,
            served_model=served_model,
            send=send,
            template=template,
            path=path,
            instruction=instruction,
            instruction_field=instruction_field,
            dimensions=dimensions,
        )
        with Reference(settings) as reference:
            subject = make_subject(
                reference,
                instruction=instruction,
                tolerance=tolerance,
                norms_count=True,
                dimensions=dimensions,
                max_tokens=max_tokens,
            )
            return verify_endpoint(subject, ways, model=settings.model)


def _verify_backend(
    settings: EngineSettings,
    kind: ModelKind | None,
    *,
    backend: str,
    model_kwargs: Mapping[str, Any] | None,
    instruction: str | None,
    max_tokens: int | None,
    tolerance: float | None,
) -> Report:
    """Compare a backend with the reference, which opens the checkpoint as the default backend does."""
    from qwen3_rag.verification.reference import Reference
    from qwen3_rag.verification.subject import make_subject
    from qwen3_rag.verification.verify_backend import verify_backend

    settings = _of_kind(settings, kind)
    with Reference(settings) as reference:
        subject = make_subject(
            reference,
            instruction=instruction,
            tolerance=tolerance,
            norms_count=False,
            dimensions=None,
            max_tokens=max_tokens,
        )
        return verify_backend(subject, replace(settings, backend=backend, model_kwargs=model_kwargs))


def _of_kind(settings: EngineSettings, kind: ModelKind | None) -> EngineSettings:
    """Return the settings with this kind, or with the one that the checkpoint's files show."""
    from qwen3_rag.kinds import find_kind

    return replace(settings, kind=find_kind(settings) if kind is None else kind)


def _refuse_of_the_other(
    url: str | None, *, of_servers: Mapping[str, object], of_backends: Mapping[str, object]
) -> None:
    """Refuse options that have no meaning for what is verified, a server or a backend."""
    right, other, foreign = "--url", "--backend", of_servers
    if url is not None:
        right, other, foreign = "--backend", "--url", of_backends
    given = [name for name, value in foreign.items() if value is not None]
    if given:
        raise ConfigurationError(f"{', '.join(given)} goes with {right}; leave it out with {other}")


def _endpoint(url: str, api_key_env: str | None, timeout: float) -> Endpoint:
    from qwen3_rag.backends.remote.keys import key_from_environment
    from qwen3_rag.verification.endpoint import Endpoint

    key = None if api_key_env is None else key_from_environment(api_key_env)
    return Endpoint(url, key=key, timeout=timeout)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report.as_dict())
    else:
        replace_unencodable_characters()
        print(_as_text(report))


def _as_text(report: Report) -> str:
    asked = "" if report.served_model is None else f" asked for {report.served_model!r}"
    lines = [f"{report.target}{asked}, compared with {report.model} ({report.kind}) run here"]
    for check in report.checks:
        if check.difference is None:
            numbers = "nothing to compare"
        else:
            numbers = (
                f"largest {check.measure} {check.difference:.2g} over {check.texts} texts, "
                f"at most {check.tolerance:g}"
            )
        note = "for other clients, " if check.is_note else ""
        lines.append(f"{note}{check.path}: {'right' if check.passed else 'WRONG'}; {numbers}")
        for found in check.findings:
            lines += [f"  {found.fault}: {found.what}", f"    fix: {found.fix}"]
    if report.longest:
        lines.append(f"checked up to {report.longest:,} tokens; longer texts were not sent (see --max-tokens)")
    if not report.passed:
        lines.append("NOT all agree")
    elif all(check.passed for check in report.checks):
        lines.append("all agree")
    else:
        lines.append("token ids agree, and this package sends them; clients that send text get other numbers")
    return "\n".join(lines)
