"""Pictures of data that was computed elsewhere."""

from interp.views.patterns import attention, tokens

__all__ = ["attention", "tokens"]
