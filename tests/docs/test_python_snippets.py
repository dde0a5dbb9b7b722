"""Every Python snippet of the documents runs, with the demo pair in place of the published models."""

from __future__ import annotations

import re

import pytest
from snippet_runner import Runner
from snippets import CHINESE, documents, python_blocks

TEST_MODULE = "docs/contracts.md"
"""Its Python is for pytest: see test_contract_snippets.py."""
RUN = [name for name in documents() if name not in (CHINESE, TEST_MODULE) and python_blocks(name)]
EXCEPTIONS = {"docs/vllm.md": ["starts vLLM; run by tests/vllm_backend/test_vllm_snippets.py"] * 3}
NOT_SERVERS = {"https://models.example.org"}


@pytest.mark.parametrize("document", RUN)
def test_python_snippets_of_a_document_run_in_order(document: str, runner: Runner) -> None:
    blocks = [block for block in python_blocks(document) if block.exception is None]
    error = runner.error_of(document, [block.code for block in blocks], [block.line for block in blocks])
    assert error is None, error


def test_snippets_that_are_not_run_are_those_listed_here() -> None:
    found = {
        name: [b.exception for b in python_blocks(name) if b.exception is not None] for name in documents()
    }
    assert {name: reasons for name, reasons in found.items() if reasons} == EXCEPTIONS


def test_snippets_name_no_server_that_has_no_stand_in(addresses: dict[str, str]) -> None:
    for document in documents():
        for block in python_blocks(document):
            named = set(re.findall(r'"(https?://[^"]+)"', block.code))
            assert named <= addresses.keys() | NOT_SERVERS, block.place
