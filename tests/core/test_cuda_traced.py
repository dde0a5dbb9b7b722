"""The CUDA path, traced without a GPU: tensors that have a device, shape and dtype, but no numbers.

Such a trace raises where tensors of two devices meet, where shapes or dtypes do not fit, and where the host
would have to wait for a number of the device's. Whether the numbers are right, only a GPU can show.

Any build of PyTorch will do. Some methods of tensors first select the tensor's device, which a build without
CUDA cannot; the operations that they then call need none, and are called instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qwen3_rag.backends.transformers import kernels, matmul
from qwen3_rag.backends.transformers.decoder import Decoder
from qwen3_rag.backends.transformers.elementwise import EAGER
from qwen3_rag.backends.transformers.graphs import padded, recorded_shape
from qwen3_rag.backends.transformers.layout import device_batch, host_rows, to_device, upload, views
from qwen3_rag.plan import PackedBatch, plan_batches
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3Model

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there: it is tested itself")

CUDA = torch.device("cuda", 0)
HIDDEN = 64


def fake_decoder(layers: int = 2) -> Decoder:
    """A decoder whose weights are on a GPU that is not there."""
    modules = Qwen3Model(
        Qwen3Config(
            vocab_size=100,
            hidden_size=HIDDEN,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=128,
        )
    )
    for module in modules.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, dtype=torch.bfloat16, device=CUDA)
            module._parameters[name] = nn.Parameter(empty, requires_grad=False)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)
    return Decoder(modules, EAGER)


def _part(tensor: Tensor, subscript: Any) -> Tensor:
    """Return `tensor[subscript]`."""
    subscripts = subscript if isinstance(subscript, tuple) else (subscript,)
    at = 0
    for place, one in enumerate(subscripts):
        if one is None:
            tensor = tensor.unsqueeze(at)
        elif one is Ellipsis:
            at = tensor.dim() - sum(later is not None for later in subscripts[place + 1 :])
            continue
        elif isinstance(one, slice):
            tensor = torch.ops.aten.slice(tensor, at, one.start, one.stop, one.step or 1)
        elif isinstance(one, int):
            tensor = tensor.select(at, one)
            continue
        else:
            tensor = tensor.index_select(at, one)
        at += 1
    return tensor


OPERATIONS: dict[Any, Callable[..., Any]] = {
    Tensor.__getitem__: _part,
    Tensor.__setitem__: lambda tensor, subscript, value: torch.ops.aten.copy_(_part(tensor, subscript), value),
    Tensor.contiguous: lambda tensor: tensor.clone(memory_format=torch.contiguous_format),
    Tensor.copy_: torch.ops.aten.copy_,
    F.scaled_dot_product_attention: lambda *args, **options: torch.ops.aten._scaled_dot_product_attention_math(
        *args, **options
    )[0],
}
"""Functions that select a device -> operations that do the same without."""


class WithoutSelectingDevices(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return OPERATIONS.get(function, function)(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def nothing_is_real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(matmul, "is_plain", lambda module: type(module) is nn.Linear)
    with FakeTensorMode(), WithoutSelectingDevices(), torch.inference_mode():
        yield


def kernel(name: str) -> Any:
    return kernels._transposing(kernels._torch_kernels()[0]) if name == "torch" else None


def one_batch(*lengths: int, shared: int = 0) -> PackedBatch:
    """Sequences of these lengths, the first tokens of which are the same."""
    numbers = np.random.default_rng(0)
    first = numbers.integers(0, 100, shared, dtype=np.int32)
    sequences = [np.concatenate([first, numbers.integers(0, 100, n, dtype=np.int32)]) for n in lengths]
    (batch,) = plan_batches(sequences, token_budget=100_000)
    return batch


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count operations by name."""
    found: Counter[str] = Counter()

    class _Count(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found[str(function)] += 1
            return function(*args, **(kwargs or {}))

    with _Count():
        yield found


@pytest.mark.parametrize("shared", [0, 40, 1000])
@pytest.mark.parametrize("by", ["torch", "none"])
def test_a_batch_stays_on_the_device_and_the_host_waits_for_no_number(by: str, shared: int) -> None:
    batch = one_batch(*[5, 9, 100] * 10, shared=shared)
    assert any(segment.parent is not None for segment in batch.segments) is (shared > 0)
    states = fake_decoder().final_states(cache(lambda device: to_device(batch, device, kernel(by))))
    assert states.device == CUDA
    assert states.dtype is torch.bfloat16
    assert states.shape == (len(batch.segments), HIDDEN)


def test_a_batch_of_a_recorded_shape_is_traced_too() -> None:
    batch = one_batch(5, 9)
    shape = recorded_shape(batch)
    assert shape is not None
    full = padded(batch, *shape)
    rows = host_rows(full, kernel("torch"))
    moved = device_batch(full, views(rows, upload(rows, CUDA)), kernel("torch"), longest=shape[0])
    assert fake_decoder().final_states(lambda _: moved).shape == (shape[1], HIDDEN)


def test_the_trace_notices_a_tensor_left_behind_and_a_host_that_waits() -> None:
    rows = torch.empty(2, 3, device=CUDA)
    with pytest.raises(RuntimeError, match="device"):
        rows + torch.empty(2, 3)
    with pytest.raises(DataDependentOutputException):
        rows.sum().item()


KERNELS = (
    *("aten.mm.out", "aten.rms_norm.default", "aten.mul.out", "aten.addcmul_.default"),
    *("aten.addmm_.default", "aten.silu_.default", "aten.mul_.Tensor", "aten._flash_attention_forward.default"),
)
VIEWS = ("aten.view.default", "aten.chunk.default", "aten.flatten.using_ints", "aten.transpose.int")


@pytest.mark.parametrize(("shared", "more"), [(0, set()), (40, {"aten.index_select.default"})])
def test_a_layer_starts_few_kernels_and_makes_few_views(shared: int, more: set[str]) -> None:
    """On a GPU a query takes as long as the host needs to start its kernels."""
    batch = one_batch(30, 50, shared=shared)
    counts = []
    for layers in (2, 3):
        decoder = fake_decoder(layers)
        with counted() as found:
            decoder.final_states(cache(lambda device: to_device(batch, device, kernel("torch"))))
        counts.append(found)
    of_a_layer = counts[1] - counts[0]
    del of_a_layer["prim.device.default"]
    assert of_a_layer.keys() == {*KERNELS, *VIEWS, *more}
    assert sum(of_a_layer[name] for name in KERNELS) <= 20
    assert sum(of_a_layer[name] for name in more) <= 2
    assert sum(of_a_layer[name] for name in VIEWS) <= 13
