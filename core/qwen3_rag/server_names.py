"""Names for servers and for ways of asking them: values of options, in code and on the command line.

A module of its own, since the command line reads the names without importing httpx.
"""

from __future__ import annotations

from typing import Literal

ServerName = Literal["vllm", "tei", "openai", "cohere", "jina", "dashscope"]
"""What a server speaks; docs/remote.md describes each."""
TemplateSide = Literal["client", "server"]
"""Who renders rerank prompts that are sent as text."""
Send = Literal["auto", "ids", "text", "both"]
"""What `qwen3-rag verify` sends: token ids, text, or both; "auto" depends on the server."""
