"""Predictions after edits of tokens, teacher-forced: what `interp.forward.readout` gives of each edited batch.

Under a causal mask nothing changes before the first edited token, so keys and values there are those of the unedited
prompts, which run once. Where each prompt reads one position of its own, nothing after it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from interp.arguments import exclusive
from interp.forward import Readout, readout, steps_of
from interp.models.anatomy import Anatomy
from interp.models.resolve import AnyModel, raw_of
from interp.patching.changes import Changes, Where
from interp.patching.editing import Place
from interp.patching.metric import Metric
from interp.patching.patched_runs import final_patched
from interp.patching.rerunning import unpatched_runs
from interp.patching.unpatched import Unpatched
from interp.sites import Site
from interp.support.finite import require_finite
from interp.tasks import Batch


def readouts(
    model: AnyModel,
    base: Batch,
    edited: Mapping[str, Batch],
    at: Int[Tensor, " predicted"],
    own: Int[Tensor, " batch"] | None = None,
) -> tuple[Readout, dict[str, Readout]]:
    """Return the readout of the base at positions `at`, and those of edited copies of it by name.

    `own`: the position in `at` of each prompt; readouts then have these alone, `[batch 1]`. Models without steps run
    whole for each copy (see `interp.forward.steps_of`). Raises the errors of `readout`, and `ValueError` for a copy of
    another shape.
    """
    for name, batch in edited.items():
        if batch.tokens.shape != base.tokens.shape:
            raise ValueError(
                f"{name}: prompts are {list(batch.tokens.shape)}, those of the base {list(base.tokens.shape)}"
            )
    anatomy = steps_of(raw_of(model), base, at)
    if anatomy is not None:
        return _by_steps(model, anatomy, base, edited, at, own)
    wholes = {name: readout(model, batch, at) for name, batch in (("", base), *edited.items())}
    if own is not None:
        rows, column = torch.arange(len(base)), torch.searchsorted(at, own)
        wholes = {
            name: Readout(x.likeliest[rows, column].unsqueeze(1), x.logits[rows, column].unsqueeze(1))
            for name, x in wholes.items()
        }
    return wholes.pop(""), wholes


@exclusive
@torch.no_grad()
def _by_steps(
    model: AnyModel,
    anatomy: Anatomy,
    base: Batch,
    edited: Mapping[str, Batch],
    at: Int[Tensor, " predicted"],
    own: Int[Tensor, " batch"] | None,
) -> tuple[Readout, dict[str, Readout]]:
    del model  # locked
    sites: tuple[Site, ...] = ("k", "v")
    keep: list[Place] = [("resid_pre", 0), ("q", 0), *((site, i) for i in range(len(anatomy.blocks)) for site in sites)]
    symbols = base.vocabulary.tokens(base.format.outputs).to(anatomy.device)
    rows, found = [], {name: list[tuple[Tensor, Tensor]]() for name in ("", *edited)}

    def add(name: str, run: Unpatched, final: Tensor) -> None:
        if own is not None:
            column = torch.searchsorted(run.reads, (own[run.rows] - 1).to(final.device))
            final = final[torch.arange(len(final), device=final.device), column].unsqueeze(1)
        logits = require_finite(anatomy.unembed(final), "a logit of the model", run.rows, axis=0, batch=base)
        found[name].append((logits.argmax(dim=-1).cpu(), logits[..., symbols].cpu()))

    for run in unpatched_runs(anatomy, base, [_reading(at - 1, own)], keep):
        rows.append(run.rows)
        add("", run, run.final)
        for name, batch in edited.items():
            add(name, run, final_patched(anatomy, run, _changes(anatomy, run, base, batch), run.reads))
    order = torch.cat(rows).argsort()
    by_name = {
        name: Readout(*(torch.cat(parts)[order] for parts in zip(*chunks, strict=True)))
        for name, chunks in found.items()
    }
    return by_name.pop(""), by_name


def _changes(anatomy: Anatomy, run: Unpatched, base: Batch, edited: Batch) -> Changes:
    """Return the changes of a run in which the edited tokens enter, from the first of them on."""
    tokens = edited.tokens[run.rows, : run.n_pos]
    differs = (tokens != base.tokens[run.rows, : run.n_pos]).any(dim=0)
    at = differs.nonzero().flatten().to(anatomy.device)
    first = int(at[0]) if len(at) else run.n_pos
    resid = anatomy.embed(tokens.to(anatomy.device))
    return Changes(0, first if anatomy.causal else 0, {("resid_pre", 0): partial(_entered, resid)}, at=at)


def _entered(resid: Tensor, own: Tensor, computed: Mapping[Site, Tensor], where: Where) -> Tensor:
    del own, computed
    return resid[:, where]


def _reading(positions: Int[Tensor, " read"], own: Int[Tensor, " batch"] | None) -> Metric:
    """Return what `unpatched_runs` needs to know of a readout: its positions, and each prompt's own."""

    def at(some: Tensor) -> Metric:
        own_position = None if own is None else own - 1
        narrow = None if own is None else at
        return Metric("readout", some, lambda logits, rows: logits[..., 0, 0], own=own_position, narrow=narrow)

    return at(positions if own is None else (own - 1).unique())
