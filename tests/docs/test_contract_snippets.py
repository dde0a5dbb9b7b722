"""The guide for authors of backends works as written: its entry point is found and its test class passes."""

from __future__ import annotations

import re
from pathlib import Path

from snippet_runner import Runner
from snippets import blocks_of

GUIDE = "docs/contracts.md"
BACKEND = "from qwen3_rag.backends.transformers import create\n"
RUN_TESTS = """
import sys, pytest
sys.path.insert(0, {folder!r})
assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", {folder!r}, {folder!r}]) == 0
"""


def test_the_guides_backend_is_found_and_passes_its_contract(
    runner: Runner, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    blocks = {block.language: block for block in blocks_of(GUIDE)}
    entry_point = re.fullmatch(
        r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(\w+)\.(\w+):(.+)"\n', blocks["toml"].code
    )
    assert entry_point is not None
    group, name, package, module, attribute = entry_point.groups()
    _install(tmp_path, f"[{group}]\n{name} = {package}.{module}:{attribute}\n", Path(package) / f"{module}.py")
    # Not the demo pair, whose vocabulary is its own: the contract looks for Qwen3's closing token.
    model = str(embedding_checkpoint)
    tests, replaced = re.subn(r'(?<=^MODEL = ").+?(?=")', model, blocks["python"].code, flags=re.M)
    assert replaced == 1
    (tmp_path / "test_mine.py").write_text(tests, encoding="utf-8")
    error = runner.error_of(GUIDE, [RUN_TESTS.format(folder=str(tmp_path))])
    assert error is None, error


def _install(folder: Path, entry_points: str, module: Path) -> None:
    """Make a distribution that can be imported from a folder, and whose metadata is found there."""
    (folder / module.parent).mkdir()
    (folder / module.parent / "__init__.py").touch()
    (folder / module).write_text(BACKEND)
    metadata = folder / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
