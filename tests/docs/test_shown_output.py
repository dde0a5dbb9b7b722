"""What documents show of the package is so: output, numbers apart, and tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from qwen3_rag import PRESETS, PUBLISHED_MODELS, Embedder
from qwen3_rag.cli import app
from snippets import MODELS, ROOT, blocks_of
from typer.testing import CliRunner


@pytest.fixture
def url_without_closing_token() -> Iterator[str]:
    """A server of the demo's embedding model whose tokenizer lost the closing token."""
    import models
    import server
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(MODELS / "demo-embedding" / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    with Embedder("demo", device="cpu", dtype="float32") as embedder:
        answer = models.openai(models.checkpoint(embedder), tokenizer)
        with server.serving(answer) as served:
            yield served.url


def form_of(output: str) -> str:
    """Return an output on one line, with its numbers blotted out."""
    return re.sub(r"\d[\d.e-]*\d|\d", "#", " ".join(output.split()))


def test_the_guide_to_verify_shows_what_it_prints(url_without_closing_token: str) -> None:
    (shown,) = [b.code for b in blocks_of("docs/verifying.md") if "NOT all agree" in b.code]
    arguments = ["verify", "--device", "cpu", "--model", "demo", "--kind", "embedding"]
    run = CliRunner().invoke(app, [*arguments, "--url", url_without_closing_token])
    assert run.exit_code == 1, run.output
    printed = run.stdout.replace(url_without_closing_token, "http://localhost:8000")
    assert form_of(shown) == form_of(printed)


def test_the_guide_to_vllm_shows_the_commands_that_serve_prints() -> None:
    commands = [
        b.code.replace("\\\n", "") for b in blocks_of("docs/vllm.md") if b.code.startswith("vllm serve")
    ]
    shown = [shlex.split(command) for command in commands]
    assert [argv[2] for argv in shown] == ["Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B"]
    for argv, port in zip(shown, ("8000", "8001"), strict=True):
        run = CliRunner().invoke(app, ["serve", argv[2], "--port", port])
        assert run.exit_code == 0, run.output
        assert sorted(argv) == sorted(shlex.split(run.stdout)), "the order is for reading"


def test_the_guide_to_instructions_lists_the_presets() -> None:
    guide = (ROOT / "docs" / "instructions.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(.+)` \| (.+) \|$", guide, re.M)) == dict(PRESETS)


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_list_the_published_models(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Qwen/.+?)` \| (\d+) \| .*?(\d+|-) \| ([\d,]+) \|", text, re.M)
    assert rows == [
        (m.name, str(m.layers), str(m.dimensions) if m.kind == "embedding" else "-", f"{m.context:,}")
        for m in PUBLISHED_MODELS
    ]
