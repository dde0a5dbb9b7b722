"""`qwen3-rag verify`: every option arrives where it matters, and every result is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from qwen3_rag.settings import EngineSettings
from qwen3_rag.verification import Check, Finding, Report
from verify_run import run

RIGHT = Check("by ids", 13, 1400, 0.0123, "distance", 0.1, ())
WRONG = Check("by text", 13, 1400, 0.5, "distance", 0.1, (Finding("lower-cased", "it shouts not", "shout"),))
NOTED = Check("by text", 13, 1400, 0.5, "distance", 0.1, WRONG.findings, is_note=True)
EMPTY = Check("by text", 0, 0, None, "distance", 0.1, (Finding("refused", "it says no", "ask nicely"),))


class Recorded(dict[str, Any]):
    """Arguments by the name of what was called with them; it takes the place of all that computes."""

    def called(self, name: str, result: Any = None) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self[name] = (arguments, named)
            return result

        return call


class Opened:
    def __enter__(self) -> str:
        return "opened"

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    found = Recorded()
    report = Report("target", "m", "embedding", (RIGHT,))
    package = "qwen3_rag.verification."
    for module, name, result in (
        ("endpoint", "Endpoint", Opened()),
        ("reference", "Reference", Opened()),
        ("subject", "make_subject", "subject"),
        ("verify_endpoint", "find_ways", "ways"),
        ("verify_endpoint", "verify_endpoint", report),
        ("verify_backend", "verify_backend", report),
    ):
        monkeypatch.setattr(f"{package}{module}.{name}", found.called(name, result))
    monkeypatch.setattr("qwen3_rag.kinds.find_kind", found.called("find_kind", "reranking"))
    return found


def test_every_option_of_a_server_arrives(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "not-a-real-one")
    given = "--url http://h --model m --server tei --kind reranking --send text --template client"
    more = "--served-model s --dimensions 64 --max-tokens 3000 --tolerance 0.2 --api-key-env SOME_KEY --path /p"
    settings = "--timeout 7 --dtype bfloat16 --hub modelscope --revision r --instruction-field task"
    result = run(*f"{given} {more} {settings}".split(), "--instruction", "Find it.")
    assert result.exit_code == 0, result.output
    model = EngineSettings(
        "reranking", "m", device="cpu", dtype="bfloat16", hub="modelscope", revision="r", model_kwargs=None
    )
    assert recorded["Reference"] == ((model,), {})
    (url,), endpoint = recorded["Endpoint"]
    assert (url, endpoint["timeout"], endpoint["key"].hide_in("not-a-real-one")) == ("http://h", 7, "[API key]")
    assert recorded["find_ways"] == (
        ("opened", "reranking"),
        {
            "server": "tei",
            "model": "m",
            "served_model": "s",
            "send": "text",
            "template": "client",
            "path": "/p",
            "instruction": "Find it.",
            "instruction_field": "task",
            "dimensions": 64,
        },
    )
    assert recorded["make_subject"] == (
        ("opened",),
        {
            "instruction": "Find it.",
            "tolerance": 0.2,
            "norms_count": True,
            "dimensions": 64,
            "max_tokens": 3000,
        },
    )
    assert recorded["verify_endpoint"] == (("subject", "ways"), {"model": "m"})
    assert "find_kind" not in recorded


def test_what_is_not_given_of_a_server_is_found_out_or_usual(recorded: Recorded) -> None:
    assert run("--url", "http://h", "--model", "m").exit_code == 0
    assert recorded["Reference"] == ((EngineSettings("reranking", "m", device="cpu", dtype="float32"),), {})
    assert recorded["Endpoint"] == (("http://h",), {"key": None, "timeout": 120})
    (_, kind), ways = recorded["find_ways"]
    assert (kind, ways["send"], ways["template"]) == ("reranking", "auto", "server")
    unset = ("server", "served_model", "path", "instruction", "instruction_field", "dimensions")
    assert {ways[name] for name in unset} == {None}
    _, subject = recorded["make_subject"]
    assert {subject[name] for name in ("instruction", "tolerance", "dimensions", "max_tokens")} == {None}


def test_every_option_of_a_backend_arrives_and_its_own_not_at_the_reference(recorded: Recorded) -> None:
    given = ("--backend", "b", "--model", "m", "--max-tokens", "3000", "--tolerance", "0.2")
    result = run(*given, "--instruction", "Find it.", "--model-kwargs", '{"x": 1}', "--dtype", "float16")
    assert result.exit_code == 0, result.output
    model = {"kind": "reranking", "model": "m", "device": "cpu", "dtype": "float16"}
    assert recorded["Reference"] == ((EngineSettings(**model),), {})
    assert recorded["verify_backend"] == (
        ("subject", EngineSettings(**model, backend="b", model_kwargs={"x": 1})),
        {},
    )
    assert recorded["make_subject"] == (
        ("opened",),
        {
            "instruction": "Find it.",
            "tolerance": 0.2,
            "norms_count": False,
            "dimensions": None,
            "max_tokens": 3000,
        },
    )


FINE = ["by ids", "right", "0.012 over 13 texts, at most 0.1"]
BAD = ["by text", "WRONG", "0.5 over 13 texts, at most 0.1"]
FOUND = [["lower-cased: it shouts not"], ["fix: shout"]]
UP_TO = ["1,400 tokens", "--max-tokens"]


@pytest.mark.parametrize(
    ("checks", "code", "lines"),
    [
        ([RIGHT], 0, [FINE, UP_TO, ["all agree"]]),
        ([RIGHT, WRONG], 1, [FINE, BAD, *FOUND, UP_TO, ["NOT all agree"]]),
        (
            [RIGHT, NOTED],
            0,
            [FINE, ["other clients", *BAD], *FOUND, UP_TO, ["ids agree", "text get other numbers"]],
        ),
        (
            [EMPTY],
            1,
            [["by text", "WRONG", "nothing"], ["refused: it says no"], ["fix: ask nicely"], ["NOT all agree"]],
        ),
    ],
)
def test_results_are_told_line_by_line(
    checks: list[Check], code: int, lines: list[list[str]], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report("b", "m", "embedding", tuple(checks))
    monkeypatch.setattr(
        "qwen3_rag.verification.verify_backend.verify_backend", recorded.called("verify_backend", report)
    )
    result = run("--backend", "b", "--model", "m")
    assert result.exit_code == code
    for line, parts in zip(result.stdout.splitlines(), [["b", "m", "embedding"], *lines], strict=True):
        assert [part for part in parts if part not in line] == [], line
    assert ("other clients" in result.stdout) == (NOTED in checks)
    assert ("NOT" in result.stdout) == (code == 1)
    assert "asked for" not in result.stdout, "a backend is asked for no name"


def test_json_has_the_members_of_every_check() -> None:
    report = Report("b", "m", "embedding", (RIGHT, NOTED, EMPTY), "s").as_dict()
    assert {name: value for name, value in report.items() if name != "checks"} == {
        "target": "b",
        "served_model": "s",
        "model": "m",
        "kind": "embedding",
        "longest": 1400,
        "passed": False,
    }
    assert report["checks"][1] == {
        "path": "by text",
        "texts": 13,
        "longest": 1400,
        "difference": 0.5,
        "measure": "distance",
        "tolerance": 0.1,
        "findings": ({"fault": "lower-cased", "what": "it shouts not", "fix": "shout"},),
        "is_note": True,
        "passed": False,
    }
    assert [check["passed"] for check in report["checks"]] == [True, False, False]
