"""Address by neighbours: swap the labels before or after those that M1 swaps.

M1 assumes that a step is addressed by its own label. Here the labels of the neighbouring steps are swapped instead, so
that an address by the label before or after shows as rho (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from interp.tasks import Role, counterfactual
from probes import keys
from probes.arms.m01_identity import by_cell, full_effect, margins
from probes.evidence import Evidence
from probes.trials.parity import Trials

OFFSETS = {-1: keys.SWAP_BEFORE, 1: keys.SWAP_AFTER}
QUESTION = "the input labels one step {where} are swapped: does the answer follow that label?"


def measure_neighbours(model: PreTrainedModel, trials: Trials) -> list[Evidence]:
    """Measure rho when the input labels one step before (after) the step and its partner are swapped.

    Trials without such steps are left out. A cell with fewer than two trials leaves the piece out.
    """
    steps = len(trials.batch.at(Role.OUTPUT))
    measured = []
    for offset, key in OFFSETS.items():
        pair = torch.stack([trials.step + offset, trials.partner + offset])
        # The partner's neighbour must not be the step's other neighbour.
        apart = trials.partner + offset != trials.step - offset
        possible = trials.rows(((pair >= 1) & (pair <= steps)).all(dim=0) & apart)
        cells = [int((possible.cell == c).sum()) for c in trials.cell.unique()]
        if min(cells) < 2:
            continue
        swapped = counterfactual.swap_labels(
            possible.batch, possible.step + offset, possible.partner + offset, role=Role.INPUT_LABEL
        )
        clean, moved = (margins(model, batch, possible)[0] for batch in (possible.batch, swapped))
        measured.append(
            Evidence(
                key=key,
                question=QUESTION.format(where="before" if offset < 0 else "after"),
                length=trials.length,
                quantity="rho",
                value=by_cell(clean - moved, full_effect(model, possible), possible),
                control=None,
                n=len(possible),
            )
        )
    return measured
