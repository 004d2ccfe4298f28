"""Turns data into evidence, and evidence into a verdict with stated limits."""

from probes.batteries import battery
from probes.decision import verdict

__all__ = ["battery", "verdict"]
