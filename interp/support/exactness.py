"""The error of a fast path that fails its own check."""


class Inexact(RuntimeError):
    """A fast path that differs from the whole model by more than rounding explains, so its numbers are not used."""
