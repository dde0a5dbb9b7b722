"""What the packaging tests look at: the built files, and an environment that has them installed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_WITHOUT_NETWORK: Final = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])
"""Ways to run a program in an empty network namespace: as root, and as others where the system lets them."""


@dataclass(frozen=True)
class Distribution:
    """The files that a release would upload."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment outside the repository."""

    folder: Path

    def run(self, command: str, *arguments: str) -> str:
        """Run one of the environment's programs away from the repository and return what it prints."""
        return run(self._program(command), *arguments, folder=self.folder)

    def run_alone(self, command: str, *arguments: str, home: Path) -> str:
        """Run one of the environment's programs as on a new machine that is not connected.

        Where a network namespace can be had, the program has no network at all. Elsewhere the hub's client is
        told that it is offline, and proxies lead nowhere.

        Args:
            command, arguments: as for `run`.
            home: the home folder; no other variable of this process is handed on but PATH.
        """
        variables = {"PATH": os.environ["PATH"], "HOME": str(home), "USERPROFILE": str(home)}
        cut = next(filter(_works, _WITHOUT_NETWORK), [])
        if not cut:
            nowhere = "http://127.0.0.1:9"
            variables |= {"HF_HUB_OFFLINE": "1", "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}
        return run(*cut, self._program(command), *arguments, folder=self.folder, variables=variables)

    def _program(self, command: str) -> str:
        scripts = self.folder / ("Scripts" if sys.platform == "win32" else "bin")
        return str(scripts / command)


def run(*command: str, folder: Path, variables: dict[str, str] | None = None) -> str:
    """Run a program and return its standard output; on failure show all it said.

    Args:
        command: program and arguments.
        folder: where to run it.
        variables: its environment; None for that of this process.
    """
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


def _works(wrapper: list[str]) -> bool:
    try:
        return subprocess.run([*wrapper, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
