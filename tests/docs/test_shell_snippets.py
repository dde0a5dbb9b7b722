"""Commands in the documents exist: our own parsers take them, and what pip is told to install is declared."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import nullcontext, suppress
from importlib.metadata import metadata

import pytest
import typer
from qwen3_rag.cli import app
from snippets import ROOT, blocks_of, documents
from typer.core import TyperGroup

SHELL = {"", "sh", "bash"}
PLACEHOLDERS = {"qwen3-rag COMMAND --help"}


def block_lines(document: str) -> list[str]:
    """Return the lines of a document's shell blocks, continued ones joined."""
    code = "\n".join(block.code for block in blocks_of(document) if block.language in SHELL)
    return code.replace("\\\n", " ").splitlines()


def prose_code(document: str) -> list[str]:
    """Return the code inside a document's prose."""
    text = (ROOT / document).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [match[2].replace("\n", " ") for match in re.finditer(r"(`+)(.+?)\1(?!`)", prose, re.S)]


def calls_of(program: str, lines: list[str]) -> list[str]:
    """Return every call of a program, also behind a pipe."""
    calls = [part.strip() for line in lines for part in re.split(r"(?<= )\| ", line)]
    return [call for call in calls if call.startswith(f"{program} ")]


def commands_in(lines: list[str]) -> list[str]:
    """Return every call of `qwen3-rag`."""
    return [call for call in calls_of("qwen3-rag", lines) if call not in PLACEHOLDERS]


def pip_lines(document: str) -> list[str]:
    """Return a document's lines with `pip install`."""
    return [line for line in [*block_lines(document), *prose_code(document)] if "pip install " in line]


@pytest.fixture(scope="module")
def group() -> TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def parse(group: TyperGroup, line: str) -> None:
    """Parse a command line as the command would, without running it."""
    arguments = shlex.split(line, comments=True)[1:]
    context = typer.Context(group, info_name="qwen3-rag")
    name, command, rest = group.resolve_command(context, arguments)
    assert command is not None
    with suppress(typer.Exit):  # --help ends so
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("document", documents())
def test_command_lines_of_a_document_are_parsed(document: str, group: TyperGroup) -> None:
    for line in commands_in(block_lines(document)):
        parse(group, line)


@pytest.mark.parametrize("document", documents())
def test_commands_and_options_named_in_prose_exist(document: str, group: TyperGroup) -> None:
    for line in commands_in(prose_code(document)):
        _, name, *rest = shlex.split(line)
        assert name in group.commands, f"{document}: {line}"
        known = {option for parameter in group.commands[name].params for option in parameter.opts} | {"--help"}
        assert {part for part in rest if part.startswith("-")} <= known, f"{document}: {line}"


def test_a_wrong_command_is_noticed(group: TyperGroup) -> None:
    for line in ("qwen3-rag embed a.txt b.npy --dimension 512", "qwen3-rag check --url http://localhost"):
        with pytest.raises(Exception, match=r"No such (option|command)"):
            parse(group, line)


def test_every_command_is_in_the_command_lines_guide(group: TyperGroup) -> None:
    named = {line.split()[1] for line in commands_in(prose_code("docs/command-line.md"))}
    assert named == set(group.commands)


@pytest.mark.parametrize("document", documents())
def test_pip_extras_of_a_document_are_declared(document: str) -> None:
    declared = set(metadata("qwen3-rag").get_all("Provides-Extra") or [])
    for line in [*block_lines(document), *prose_code(document)]:
        for extras in re.findall(r"(?:qwen3-rag|\.)\[([\w,-]+)\]", line):
            assert set(extras.split(",")) <= declared, line


def test_extras_that_are_declared_are_in_both_readmes() -> None:
    declared = set(metadata("qwen3-rag").get_all("Provides-Extra") or [])
    for document in ("README.md", "README.zh-CN.md"):
        rows = re.findall(r"^\| (`.+?`) \|", (ROOT / document).read_text(encoding="utf-8"), re.M)
        assert declared <= {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}, document


@pytest.mark.parametrize("document", documents())
def test_pip_lines_of_a_document_name_groups_and_files_that_are_there(document: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    groups = set(re.findall(r"^(\w+) = \[", project.split("[dependency-groups]")[1].split("\n[")[0], re.M))
    for line in pip_lines(document):
        assert set(re.findall(r"--group (\S+)", line)) <= groups, f"{document}: {line}"
        for file in re.findall(r" -[cr] (\S+)", line):
            assert (ROOT / file).is_file(), f"{document}: {line}"


@pytest.mark.parametrize("document", documents())
def test_training_lines_of_a_document_are_parsed(document: str) -> None:
    from training.__main__ import parser

    for line in calls_of("python -m training", [*block_lines(document), *prose_code(document)]):
        with suppress(SystemExit) if line.endswith("--help") else nullcontext():
            parser().parse_args(shlex.split(line, comments=True)[3:])


def test_lines_of_other_programs_are_looked_at() -> None:
    assert len(calls_of("python -m training", block_lines("docs/training.md"))) >= 4
    assert len(pip_lines("docs/training.md")) == 1


@pytest.mark.parametrize("document", documents())
def test_json_of_a_document_is_json(document: str) -> None:
    for block in blocks_of(document):
        if block.language == "json":
            json.loads(block.code)
