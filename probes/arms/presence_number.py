"""Presence, number: let every label count twice in the softmax of some cells.

A sink needs labels to take attention, and more labels take it as well. A head that counts labels by its denominator
gives another number (probes/README.md, Battery).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from interp.patching.editing import Place
from interp.patching.rerunning import Where, WhereEdit
from probes.arms.presence_cells import Cells
from probes.arms.presence_interchanges import Interchanges, measure_edited


def lost_when_twice(work: Interchanges, cells: Cells) -> dict[str, Float[Tensor, " prompt"]]:
    """Return what is lost of the score of `work` when each label has a second key of equal score and value.

    One entry per kind of query, and "all": a count that is doubled on both sides of a comparison may agree again.
    """
    kinds = cells.kinds()
    families = {"all": cells} | {kind: cells.of_kind(kind) for kind in kinds}
    return {name: work.clean - _score(work, some) for name, some in families.items()}


def _score(work: Interchanges, cells: Cells) -> Float[Tensor, " prompt"]:
    labels, device = work.labels, work.anatomy.device

    def edits_of(layer: int, mask: Tensor, rows: Tensor) -> dict[Place, WhereEdit]:
        del rows
        more = (math.log(2) * (mask.unsqueeze(2) & labels)).to(device)  # [head dest src]

        def scores(own: Tensor, computed: Mapping, where: Where) -> Tensor:
            del computed
            return own + more[:, where].to(own.dtype)

        return {("attn_scores", layer): scores}

    return measure_edited(work.raw, work, cells, edits_of)[0]
