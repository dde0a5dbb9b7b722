"""From nothing to the first vector, in fresh processes: import, load, embed one query."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Final

from benchmarks.timing import summary
from benchmarks.ways import OURS
from benchmarks.workloads import Bench, Result

_ROUNDS: Final = 3

_IMPORTS: Final = {OURS: "qwen3_rag", "Sentence Transformers": "sentence_transformers"}
_FIRST_VECTOR: Final = {
    OURS: (
        "from qwen3_rag import Embedder\n"
        "embedder = Embedder({folder!r}, device={device!r}, dtype={dtype!r})\n"
        "embedder.embed_queries(['first?'])\n"
    ),
    "published snippet": (
        "import torch\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained({folder!r}, padding_side='left')\n"
        "model = AutoModel.from_pretrained({folder!r}, dtype=torch.{dtype}).to({device!r})\n"
        "with torch.inference_mode():\n"
        "    batch = tokenizer(['first?'], return_tensors='pt').to({device!r})\n"
        "    model(**batch).last_hidden_state[:, -1].float().cpu().numpy()\n"
    ),
    "Sentence Transformers": (
        "import torch\n"
        "from sentence_transformers import SentenceTransformer\n"
        "options = dict(device={device!r}, model_kwargs=dict(dtype=torch.{dtype}))\n"
        "SentenceTransformer({folder!r}, **options).encode(['first?'], prompt_name='query')\n"
    ),
}
_CLOCK: Final = (
    "import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
)


def startup(bench: Bench) -> Result:
    """Seconds of `import`, and from the start of the interpreter to its end, one vector later.

    Files are in the page cache: checkpoints were just written, and each import is run once beforehand.
    """
    setup = bench.setup
    folder = str(setup.checkpoint("embedding"))
    given = {"folder": folder, "device": str(setup.device), "dtype": setup.dtype_name}
    scripts = {name: script.format(**given) for name, script in _FIRST_VECTOR.items() if _is_there(name)}
    imports: dict[str, list[float]] = {name: [] for name in _IMPORTS if _is_there(name)}
    vectors: dict[str, list[float]] = {name: [] for name in scripts}
    for name in imports:
        _run(_CLOCK.format(module=_IMPORTS[name]))
    for _ in range(_ROUNDS):
        for name, own in imports.items():
            own.append(float(_run(_CLOCK.format(module=_IMPORTS[name]))))
        for name, script in scripts.items():
            started = time.perf_counter()
            _run(script)
            vectors[name].append(time.perf_counter() - started)
    data = {}
    for what, seconds in (("import", imports), ("first_vector", vectors)):
        data[what] = [{"peer": name, **summary(own, seconds[OURS])} for name, own in seconds.items()]
    return Result(data)


def _is_there(name: str) -> bool:
    return find_spec(_IMPORTS.get(name, "transformers")) is not None


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()
