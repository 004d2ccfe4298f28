"""Attention patterns (`attention`), and one row of values as coloured tokens (`tokens`)."""

from interp.views.patterns.page import attention
from interp.views.patterns.row import tokens

__all__ = ["attention", "tokens"]
