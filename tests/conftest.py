"""No test goes online, and transformers draws no progress bars."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

from transformers.utils import logging

logging.disable_progress_bar()
