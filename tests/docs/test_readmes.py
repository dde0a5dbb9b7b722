"""Both READMEs say the same."""

from __future__ import annotations

import re

from snippets import CHINESE, ROOT, blocks_of

ENGLISH = "README.md"


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def test_the_readmes_have_the_same_code_blocks() -> None:
    english, chinese = ([(b.language, b.code) for b in blocks_of(name)] for name in (ENGLISH, CHINESE))
    assert chinese == english


def test_the_readmes_have_the_same_sections_tables_and_links() -> None:
    for pattern in (r"^(#+) ", r"^\|[-| ]+\|$", r"\]\((?!README)([^)]+)\)"):
        english, chinese = (re.findall(pattern, text_of(name), re.M) for name in (ENGLISH, CHINESE))
        assert sorted(chinese) == sorted(english), pattern


def test_no_line_of_the_chinese_readme_breaks_between_two_characters() -> None:
    """A break is shown as a blank, which Chinese has none of."""
    assert re.findall(r".{4}[\u4e00-\u9fff]\n *[\u4e00-\u9fff].{4}", text_of(CHINESE)) == []


def test_the_readmes_lead_to_each_other() -> None:
    assert f"]({CHINESE})" in text_of(ENGLISH)
    assert f"]({ENGLISH})" in text_of(CHINESE)
