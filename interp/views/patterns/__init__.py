"""Where did heads look? Attention patterns (`attention`) and one row of one head as coloured tokens (`tokens`)."""

from interp.views.patterns.page import attention
from interp.views.patterns.row import tokens

__all__ = ["attention", "tokens"]
