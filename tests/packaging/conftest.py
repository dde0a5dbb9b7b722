"""The distribution, built once, and an empty environment that has nothing but it and what it asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from built import Distribution, Environment, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The sdist, and the wheel built from it: so the sdist is proved complete."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT), folder=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distribution(wheel, sdist)


@pytest.fixture(scope="session")
def environment(distribution: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which only the wheel was installed, without extras."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "virtualenv", "--no-download", str(folder / "venv"), folder=folder)
    environment = Environment(folder / "venv")
    constraints = str(ROOT / "constraints.txt")
    environment.run("python", "-m", "pip", "install", "-q", "-c", constraints, str(distribution.wheel))
    return environment
