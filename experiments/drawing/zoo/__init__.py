"""Figures of many runs, from one table of runs, formats, lengths and seeds.

The table has a row per run, evaluated format, length, mode and metric: see `frames.COLUMNS`. Every figure raises
`ValueError` for missing columns, and its subclass `NoRows` for a table without the rows that it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from experiments.drawing.zoo.curves import addition, by_family, gaps, reach, variants
from experiments.drawing.zoo.depends import maps
from experiments.drawing.zoo.frames import COLUMNS, NoRows, family_of
from experiments.drawing.zoo.posed import transfer
from experiments.drawing.zoo.reads import offsets, where_read
from experiments.drawing.zoo.rehearsed import own_labels, rehearsal
from experiments.drawing.zoo.roles import roles_by_format
from experiments.drawing.zoo.sizes import scale
from experiments.grid import PRETRAINED

# Figures that are drawn from the table of results, by file name.
FIGURES: Mapping[str, Callable[..., Any]] = {
    "by-family": by_family,
    "variants": variants,
    "addition": addition,
    "gaps": gaps,
    # Of fine-tuned models; their own figures, because they rehearse nothing.
    "by-family-pretrained": partial(by_family, kinds="pretrained model"),
    "variants-pretrained": partial(variants, family=family_of(PRETRAINED)),
    "gaps-pretrained": partial(gaps, family=family_of(PRETRAINED)),
    "addition-pretrained": partial(addition, family=family_of(PRETRAINED)),
    "reach-pretrained": partial(reach, family=family_of(PRETRAINED)),
    "reach": reach,
    "offsets": offsets,
    "offsets-by-family": partial(offsets, family=None),
    "where-read": where_read,
    "transfer": transfer,
    "scale": scale,
    "rehearsal": rehearsal,
    "own-labels": own_labels,
}
# Figures that compare runs with different rehearsal; all others leave out runs with a condition of their own.
CONDITIONED = ("rehearsal", "own-labels")

__all__ = [
    "COLUMNS",
    "CONDITIONED",
    "FIGURES",
    "NoRows",
    "addition",
    "by_family",
    "family_of",
    "gaps",
    "maps",
    "offsets",
    "reach",
    "roles_by_format",
    "scale",
    "transfer",
    "variants",
    "where_read",
]
