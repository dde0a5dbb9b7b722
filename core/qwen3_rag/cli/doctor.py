"""`qwen3-rag doctor`."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from qwen3_rag.checkpoint import DEMO_MODEL
from qwen3_rag.cli import options
from qwen3_rag.cli.exit_codes import CHECK_FAILED
from qwen3_rag.cli.output import replace_unencodable_characters
from qwen3_rag.errors import Qwen3RagError
from qwen3_rag.plugins import Plugin, all_plugins
from qwen3_rag.settings import DType

if TYPE_CHECKING:
    import torch

    from qwen3_rag.cli.self_test import Check

_NEEDED: Final = ("qwen3-rag", "torch", "transformers", "tokenizers", "huggingface-hub", "numpy")
_OPTIONAL: Final = (
    "langchain-core",
    "llama-index-core",
    "haystack-ai",
    "sentence-transformers",
    "vllm",
    "flash-attn",
    "httpx",
    "pyarrow",
    "modelscope",
    "accelerate",
)


@dataclass(frozen=True)
class Machine:
    """What was found on this machine.

    Attributes:
        versions: of Python and packages; None for what is not installed.
        devices: a line on each.
        device, dtype: what "auto" resolves to here.
        attention: the attention path for them.
        plugins: backends and adapters.
    """

    versions: dict[str, str | None]
    devices: list[str]
    device: str
    dtype: DType
    attention: str
    plugins: list[Plugin]


def doctor(
    model: Annotated[
        str, typer.Option(help="Embedding model to test; by default the small demo model.")
    ] = DEMO_MODEL,
    reranker: Annotated[
        str, typer.Option(help="Reranking model to test; by default the small demo model.")
    ] = DEMO_MODEL,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Report versions, devices and attention path, and test this machine's numbers.

    The self-test compares this package with a plain Hugging Face forward pass in float32, padded and
    with all logits. It passes up to 1e-5 on a CPU and 1e-4 on other devices, which add in another
    order; vectors in the device's own bfloat16 or float16 pass from a cosine of 0.999 on. Exit code 1 if it
    fails.
    """
    from qwen3_rag.backends.device.choice import choose_device

    chosen = choose_device(device)
    machine = _examine(chosen)
    checks = _self_test(chosen, machine.dtype, model, reranker)
    passed = all(check.passed for check in checks)
    if as_json:
        content = {
            **asdict(machine),
            "self_test": [{**asdict(check), "passed": check.passed} for check in checks],
            "passed": passed,
        }
        print(json.dumps(content, indent=2))
    else:
        _show(machine, checks)
    if not passed:
        raise typer.Exit(CHECK_FAILED)


def _examine(device: torch.device) -> Machine:
    from qwen3_rag.backends.device.choice import choose_dtype
    from qwen3_rag.backends.transformers.attention import attention_path
    from qwen3_rag.backends.transformers.kernels import Heads, find_varlen_kernel

    dtype = choose_dtype("auto", device)
    found = find_varlen_kernel(device, dtype, Heads(16, 8, 128))  # those of the 0.6B models
    attention = attention_path(device, found)
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _NEEDED + _OPTIONAL}}
    name = cast("DType", str(dtype).removeprefix("torch."))
    return Machine(versions, _devices(), str(device), name, attention, all_plugins())


def _devices() -> list[str]:
    import torch

    from qwen3_rag.backends.device.choice import computes_bfloat16

    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            f"cuda:{index}: {properties.name}, compute capability {properties.major}.{properties.minor}, "
            f"{properties.total_memory / 2**30:.0f} GiB"
        )
    if torch.backends.mps.is_available():
        found.append("mps: Apple graphics processor")
    computes = "computes" if computes_bfloat16(torch.device("cpu")) else "does not compute"
    found.append(f"cpu: {torch.get_num_threads()} threads, {computes} bfloat16")
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _self_test(device: torch.device, dtype: DType, model: str, reranker: str) -> list[Check]:
    from qwen3_rag.cli import self_test
    from qwen3_rag.cli.library_bars import hide_library_bars

    if model == reranker == DEMO_MODEL:
        hide_library_bars()
    checks = [
        _guarded("embedding", lambda: self_test.check_embedder(model, device, "float32")),
        _guarded("reranking", lambda: self_test.check_reranker(reranker, device)),
    ]
    if dtype != "float32":
        checks.append(_guarded(f"embedding in {dtype}", lambda: self_test.check_embedder(model, device, dtype)))
    return checks


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check. An unexpected exception fails it; errors of this package (a wrong model name) propagate."""
    try:
        return check()
    except Qwen3RagError:
        raise
    except Exception as error:
        from qwen3_rag.cli.self_test import CPU_TOLERANCE, Check

        return Check(name, None, CPU_TOLERANCE, f"{type(error).__name__}: {error}")


def _show(machine: Machine, checks: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    replace_unencodable_characters()
    table = Table("package", "version", title="versions", title_justify="left")
    for name, found in machine.versions.items():
        if found is not None:
            table.add_row(name, found)
    Console().print(table)
    absent = [name for name, found in machine.versions.items() if found is None]
    print(f"not installed: {', '.join(absent) or 'nothing'}")
    for line in machine.devices:
        print(line)
    print(f"used: {machine.device} in {machine.dtype}, attention by {machine.attention}")
    for plugin in machine.plugins:
        state = "" if plugin.installed else " (not installed)"
        print(f"{plugin.kind}: {plugin.name}{state}")
    for check in checks:
        if check.error is not None:
            outcome = f"FAILED: {check.error}"
        else:
            word = "passed" if check.passed else "FAILED"
            outcome = (
                f"{word}: largest difference {check.largest_difference:.1e}, at most {check.tolerance:.0e} "
                f"({machine.device})"
            )
        print(f"self-test {check.name}: {outcome}")
