"""Contracts as test classes: inherit one, give its properties, and pytest checks the whole contract.

One module per framework and one for backends, so that importing a contract needs only what it is about.
They are how this package tests its own adapters and backends; authors of others are welcome to them.
"""

import pkgutil

import pytest

# Before they are imported, so that their failing assertions show values, as in a test module.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
