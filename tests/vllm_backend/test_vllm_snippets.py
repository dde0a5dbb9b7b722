"""What docs/vllm.md starts runs as it stands there, with the demo pair under the published models' names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from snippets import fill_hub_cache, hub_environment, python_blocks

SCRIPT, SHARES, LONG_PROMPTS = (b.code for b in python_blocks("docs/vllm.md") if b.exception is not None)


def output_of(code: str, folder: Path, *, own_process: str) -> str:
    """Run a script and return what it prints; `own_process` is VLLM_ENABLE_V1_MULTIPROCESSING."""
    script = folder / "script.py"
    script.write_text(code)
    hub = hub_environment(fill_hub_cache(folder / "hub"))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **hub, "VLLM_ENABLE_V1_MULTIPROCESSING": own_process},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_script_with_engines_runs_as_it_is_printed(tmp_path: Path) -> None:
    code = SCRIPT.replace("\n\n\nif __name__", "\n    print(vectors.shape, best[0].index)\n\n\nif __name__")
    assert "(1, 256) 0" in output_of(code, tmp_path, own_process="1")  # vLLM's default, which the guard is for


def test_options_are_taken_as_they_are_printed(tmp_path: Path) -> None:
    """Engines with shares of memory are not started: on a CPU these are of the machine's."""
    used = "print(embedder.embed_queries(['a']).shape)\nembedder.close()\n"
    assert "(1, 256)" in output_of(SHARES + LONG_PROMPTS + used, tmp_path, own_process="0")
