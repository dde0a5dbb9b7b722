"""Files that repeat something said elsewhere must say the same."""

from __future__ import annotations

import re
from pathlib import Path


def test_continuous_integration_runs_the_readme_test_command(root: Path) -> None:
    command = _command_blocks(root / "README.md", ending="tox run")
    assert len(command) == 1
    assert (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == command[0]
    assert "- run: .ci/run" in (root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_readme_demo_command_differs_from_the_test_command_only_in_the_environment(root: Path) -> None:
    (demo,) = _command_blocks(root / "README.md", ending="tox run -e demo")
    (test,) = _command_blocks(root / "README.md", ending="tox run")
    assert demo == f"{test} -e demo"


def test_every_environment_of_tox_runs_by_default_and_is_described(root: Path) -> None:
    settings = (root / "tox.ini").read_text(encoding="utf-8")
    defined = set(re.findall(r"^\[testenv:(.+)\]$", settings, re.M))
    (listed,) = re.findall(r"^env_list = (.+)$", settings, re.M)
    assert set(listed.split(", ")) == defined
    table = re.findall(r"^\| (`.+?`) \|", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert {name for row in table for name in re.findall(r"`([\w-]+)`", row)} == defined


def test_pre_commit_runs_the_ruff_of_the_lint_group(root: Path) -> None:
    group = re.search(
        r'^lint = \["(ruff==[^"]+)"\]', (root / "pyproject.toml").read_text(encoding="utf-8"), re.M
    )
    assert group is not None
    hooks = (root / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==[^\"]+", hooks)) == {group[1]}


def _command_blocks(document: Path, *, ending: str) -> list[str]:
    """Return the lines of a document that run our tox and end so."""
    lines = document.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("python3 -m pip ") and line.endswith(ending)]
