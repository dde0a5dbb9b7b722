"""Fetching packages, with a program of the test's own in the place of apt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training import packages

APT = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
    *"download -qq there") touch there_1_all.deb ;;
    *download*) echo "E: Unable to locate" >&2; exit 100 ;;
esac
"""
DPKG_DEB = """#!/bin/sh
test "$1" = -x && test -f "$2" && echo text > "$3/file"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What apt was called with, a line each. It has one package, "there"."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in (("apt-get", APT), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls"


def test_apt_is_told_the_whole_path_of_a_relative_folder(calls: Path, tmp_path: Path) -> None:
    """It looks for a relative `Dir::State::lists` below /var/lib/apt."""
    options = packages.fetch_package_lists(Path("work/apt"))
    assert f"Dir::State::lists={tmp_path}/work/apt/lists" in options
    assert f"Dir::State::lists={tmp_path}/work/apt/lists" in calls.read_text()


@pytest.mark.usefixtures("calls")
def test_packages_are_unpacked_and_those_that_the_archive_lacks_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path("work/apt")
    found = packages.fetch_packages(folder, ("there", "elsewhere"), packages.fetch_package_lists(folder))
    assert (found["there"] / "file").is_file()
    assert list(found) == ["there"]
    assert packages.missing(folder, ("there", "elsewhere")) == ["elsewhere"]
    assert "no package elsewhere; left out. apt: E: Unable to locate" in capsys.readouterr().out


def test_no_package_is_named_twice() -> None:
    assert len(set(packages.ALL)) == len(packages.ALL)
