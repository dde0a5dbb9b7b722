"""`python -m qwen3_rag.cli`, for where the console script is not on the path."""

from qwen3_rag.cli.app import app

app(prog_name="qwen3-rag")
