"""`qwen3-rag models` and `qwen3-rag plugins`: tables that need no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Column, Table

from qwen3_rag.cli.options import Json
from qwen3_rag.models import PUBLISHED_MODELS
from qwen3_rag.plugins import all_plugins

_MORE: Final = ("usable", "from", "loads")
"""Columns that may take several lines. A name is typed, so it stays whole."""


def models(as_json: Json = False) -> None:
    """List the published models with their shapes."""
    if as_json:
        print(json.dumps([asdict(model) for model in PUBLISHED_MODELS], indent=2))
        return
    table = Table("model", "kind", "layers", "dimensions", "context")
    for model in PUBLISHED_MODELS:
        table.add_row(
            model.name,
            model.kind,
            str(model.layers),
            str(model.dimensions),
            str(model.context),
        )
    Console().print(table)


def plugins(as_json: Json = False) -> None:
    """List backends and framework adapters, installed or not."""
    found = all_plugins()
    if as_json:
        print(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    table = Table("kind", Column("name", no_wrap=True), *(Column(name, overflow="fold") for name in _MORE))
    for plugin in found:
        usable = "yes" if plugin.installed else "not installed"
        table.add_row(plugin.kind, plugin.name, usable, plugin.distribution, plugin.target)
    Console().print(table)
