"""Fetching packages, with a program of the test's own in the place of apt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training import data, packages
from training.pairs import Pair

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


def test_libraries_are_python_and_perl_packages_that_are_neither_small_nor_huge_nor_named_already() -> None:
    sizes = {
        "python3-told": 200_000,
        "python3-tiny": 1_000,
        "python3-huge": 9_000_000,
        "python3-told-doc": 200_000,
        "python3-numpy": 200_000,
        "libtold-perl": 50_000,
        "libother": 50_000,
    }
    lists = "\n\n".join(
        f"Package: {name}\nInstalled-Size: 500000\nSize: {size}" for name, size in sizes.items()
    )
    assert packages.libraries(lists) == ("libtold-perl", "python3-told")


def test_a_library_never_changes_the_held_out_task_nor_repeats_it(tmp_path: Path) -> None:
    def pair(number: int, name: str, source: str, kind: str = "docstring") -> Pair:
        words = f"{chr(97 + number // 26)}{chr(97 + number % 26)}alpha"
        return Pair(
            f"finds {words} things", f"{name}: it finds {words} things, all of them, in order", kind, source
        )

    names = [f"source-{i}" for i in range(100)]
    held_out = next(name for name in names if data.is_held_out(name))
    seen = next(name for name in names if not data.is_held_out(name))
    own = [pair(i, f"m{i}", held_out if i % 2 else seen) for i in range(40)]
    libraries = [pair(i, f"copy{i}", "library-copy") for i in range(20)]  # the same texts under other names
    libraries += [pair(i, f"new{i}", "library") for i in range(100, 120)]
    found = []
    for folder, more in ((tmp_path / "without", libraries[-1:]), (tmp_path / "with", libraries)):
        data.write_pairs(folder / "extracted.jsonl", own)
        data.write_pairs(folder / "libraries.jsonl", more)
        data.prepare(folder)
        found.append((folder / "held_out.jsonl").read_text())
    assert found[0] == found[1]
    assert {p.source for p in data.read_pairs(tmp_path / "with" / "train.jsonl")} == {seen}
    assert {p.source for p in data.read_pairs(tmp_path / "with" / "train_libraries.jsonl")} == {"library"}
