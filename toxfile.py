"""What tox does beyond tox.ini: where CI is set, an environment that passed is removed before the next is made.

Each has its own PyTorch. All together take 15 GB.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from tox.plugin import impl


@impl
def tox_after_run_commands(tox_env: Any, exit_code: int, outcomes: list[Any]) -> None:  # noqa: ARG001
    """Remove an environment whose commands all passed."""
    if os.environ.get("CI") and exit_code == 0:
        shutil.rmtree(tox_env.env_dir, ignore_errors=True)  # what stays only takes room
