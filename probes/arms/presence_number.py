"""Presence, number: let every label count twice in the softmax of some cells.

A sink needs labels to take attention, and more labels take it as well. A head that counts labels by its denominator
gives another number (probes/README.md, Battery).
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from probes.arms.presence_cells import Cells
from probes.arms.presence_interchanges import Interchanges, masks_of_cells, measure_all
from probes.arms.presence_removals import counted
from probes.arms.presence_sharing import ChangesBy


def lost_when_twice(work: Interchanges, cells: Cells) -> dict[str, Float[Tensor, " prompt"]]:
    """Return what is lost of the score of `work` when each label has a second key of equal score and value.

    One entry per kind of query, and "all": a count that is doubled on both sides of a comparison may agree again.
    """
    families = {"all": cells} | {kind: cells.of_kind(kind) for kind in cells.kinds()}
    changes = {
        name: ChangesBy(masks_of_cells(work, some), counted(work.labels, math.log(2)))
        for name, some in families.items()
    }
    return {name: work.clean - score for name, (score, _) in measure_all(work, changes).items()}
