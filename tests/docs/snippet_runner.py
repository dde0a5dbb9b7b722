"""The test's side of `snippet_script.py`."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Runner:
    """Runs documents' blocks.

    Attributes:
        process: `snippet_script.py`.
        addresses: replaced in the code, and where.
        folder: the working directory of snippets.
    """

    process: subprocess.Popen[str]
    addresses: dict[str, str]
    folder: Path

    def error_of(self, document: str, code: list[str], lines: list[int] | None = None) -> str | None:
        """Run pieces of code in order in one namespace of a new process, then use each component they made.

        Args:
            document: named in tracebacks.
            code: addresses in it are replaced.
            lines: where the pieces begin in the document.

        Returns:
            The traceback of what failed, or None.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        numbered = list(zip(lines or [1] * len(code), map(self._with_servers, code), strict=True))
        request = {"document": document, "blocks": numbered, "folder": str(self.folder)}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        error: str | None = json.loads(self.process.stdout.readline())["error"]
        return error

    def _with_servers(self, code: str) -> str:
        for address, served in self.addresses.items():
            code = code.replace(f'"{address}"', f'"{served}"')
        return code
