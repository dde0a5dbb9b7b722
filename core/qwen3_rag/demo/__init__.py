"""What `qwen3-rag demo` runs: a corpus from the user's own machine and stand-ins for the models."""
