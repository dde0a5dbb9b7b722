"""Links between documents lead to a file and to a heading that are there, as GitHub resolves them."""

from __future__ import annotations

import re

import pytest
from snippets import ROOT, documents

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents())
def test_links_of_a_document_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{document} links to {target}"
        if anchor:
            assert anchor in anchors_of(found.read_text(encoding="utf-8")), (
                f"{document} links to {target}#{anchor}"
            )
