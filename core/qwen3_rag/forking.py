"""What a forked child has to make anew: locks may be held by threads that stayed in the parent."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork_in_child(hook: Callable[[], None]) -> Callable[[], None]:
    """Run a function in every forked child, in the order of registration. Use as a decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=hook)
    return hook
