"""Turns data into evidence, and evidence into a verdict with stated limits."""
