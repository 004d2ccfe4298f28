"""Turn data into evidence, and evidence into a verdict with stated limits.

Names are imported when they are used: the import of the package alone imports no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.support.lazily import importing

if TYPE_CHECKING:
    from probes.arms.registry import ARMS
    from probes.batteries import battery
    from probes.decision import verdict

__getattr__, __dir__ = importing(
    __name__, {"probes.arms.registry": ("ARMS",), "probes.batteries": ("battery",), "probes.decision": ("verdict",)}
)

__all__ = ["ARMS", "battery", "verdict"]
