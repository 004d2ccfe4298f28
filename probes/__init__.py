"""Turn data into evidence, and evidence into a verdict with stated limits."""

from probes.arms.registry import ARMS
from probes.batteries import battery
from probes.decision import verdict

__all__ = ["ARMS", "battery", "verdict"]
