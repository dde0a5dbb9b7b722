"""Progress bars of the libraries that commands use."""

from __future__ import annotations


def hide_library_bars() -> None:
    """Silence the bars of Transformers and the hub client for saving, loading and downloading."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
