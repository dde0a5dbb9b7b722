"""The `qwen3-rag` command. Importing it, and listing models or plugins, loads no torch."""

from qwen3_rag.cli.app import app

__all__ = ["app"]
