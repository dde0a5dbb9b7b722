"""What the packaging tests look at: the built files, and an environment that has them installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


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
        scripts = self.folder / ("Scripts" if sys.platform == "win32" else "bin")
        return run(str(scripts / command), *arguments, folder=self.folder)


def run(*command: str, folder: Path) -> str:
    """Run a program and return its standard output; on failure show all it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout
