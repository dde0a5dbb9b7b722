"""Whether an object holds weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_CODE: Final = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)


def holds_tensor(value: Any) -> bool:
    """Whether a tensor of PyTorch is part of an object's state.

    State is what pickles would write: attributes, slots and pydantic's private attributes, and what
    containers contain, at any depth. Classes, functions and modules are not looked into.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    seen: dict[int, Any] = {}  # by id; keeps the objects alive, so that no id is reused
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, torch.Tensor | torch.nn.Module):
            return True
        if id(part) not in seen:
            seen[id(part)] = part
            waiting += _parts(part)
    return False


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif not isinstance(value, _CODE):
        yield from getattr(value, "__dict__", {}).values()
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            yield from (getattr(value, name) for name in names if hasattr(value, name))
