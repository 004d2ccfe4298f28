"""Measured side by side, in one process."""
