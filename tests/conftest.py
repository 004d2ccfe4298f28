"""No test goes online, libraries draw no progress bars, and tests in a browser belong to the slow tier."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
from transformers.utils import logging

logging.disable_progress_bar()

# Fixtures that start a browser. A test that uses one is slow.
BROWSER_FIXTURES = {"browser", "open_page"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests in a browser as slow, before `-m` deselects."""
    for item in items:
        if BROWSER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one torch thread."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
