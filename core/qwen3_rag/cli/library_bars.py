"""Progress bars of the libraries that commands use."""

from __future__ import annotations

import os


def hide_library_bars() -> None:
    """Silence the bars of Transformers and the hub client, here and in processes that are started later."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
