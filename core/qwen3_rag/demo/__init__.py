"""What `qwen3-rag demo` runs: a corpus from the user's own machine, searched through each framework."""
