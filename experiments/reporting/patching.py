"""The patching section of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.commands.patch import PatchCommand
from experiments.patch_inputs import places_of
from experiments.patch_printing import largest, whole_difference
from experiments.patch_validity import validity_of_sweep
from experiments.reporting.computed import MOST_HEADS, room, size
from experiments.reporting.reduced import left_out, prompts_of, reduced_notes, shown_layers
from experiments.reporting.section import Picture, SectionData, Source
from experiments.reporting.stored import now
from experiments.support.verdict_defaults import is_deep

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run
    from interp.patching import Sweep

SITES: tuple[str, ...] = ("resid_pre", "z")
# Places that the text names per site.
MOST_NAMED = 3


class Places(NamedTuple):
    """Where activations are patched, as options of `mnemoscope patch`: empty for everywhere."""

    layers: tuple[int, ...] | None = None
    positions: tuple[str, ...] = ()

    def options(self) -> str:
        """Return the options as a command line has them.

        >>> Places(positions=("7", "9")).options()
        ' --positions 7 9'
        """
        given = ((name, values) for name, values in self._asdict().items() if values)
        return "".join(f" --{name} {' '.join(map(str, values))}" for name, values in given)


def patch_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the patching section: resid_pre by layer and position, z by layer, head and position.

    `data["whole"]` is the difference of clean and corrupted, None where it is too small for shares of it. `valid` and
    `reason` say whether the model does the task at the step, as `mnemoscope patch` does.
    """
    from interp import views

    length, many = room(run, options.length), prompts_of("patch", options, run)
    at, partner = max(length // 2, 2), max(length // 4, 1)
    if run.format.task != "parity":
        corrupt, story = "redraw", "another random prompt"
    elif run.format.labels == "pool":
        corrupt, story = "swap_input_labels", f"the same prompt with input labels {at} and {partner} traded"
    else:
        corrupt, story = "flip_input", f"the same prompt with bit {at} flipped"
    pictures, sources, data = [], [], {"story": story, "step": at, "length": length, "heads": []}
    places = places_in(run, length, at, partner) if is_deep(run) else {site: Places() for site in SITES}
    for site in places:
        verb = PatchCommand(
            run.name,
            site=site,
            length=length,
            step=at,
            partner=partner,
            corrupt=corrupt,
            prompts=many,
            seed=options.seed,
            layers=places[site].layers,
            positions=places[site].positions,
        )
        sweep = _planned(run, verb, length)
        effect = verb.compute(sweep, work / f"patch-{site}")
        validity = validity_of_sweep(run, verb, sweep)
        assert validity is not None  # prompts of a task have answers
        title = f"What does patching {site} at each place change? {run.name}, length {length}"
        title = title if validity.valid else f"INVALID: {title}"
        pictures.append(Picture(views.effect(effect, title), _patch_caption(site, story, at, is_deep(run))))
        more = f" --partner {partner}" if "swap" in corrupt else ""
        more += places[site].options()
        command = (
            f"mnemoscope patch {options.said(run)} --site {site} --length {length} --step {at} --corrupt {corrupt}"
            f"{more} --prompts {many} --seed {options.seed}"
        )
        assert effect.checks is not None
        cells, gap = effect.checks.spot_cells, effect.checks.spot_difference
        made = f"{now(options)}; {cells} random cells equal the literal loop to {gap:.0e}"
        sources.append(Source(f"patching {site}", command, options.seed, made))
        top = largest(effect, best=site == "resid_pre")[:MOST_NAMED]
        data[site] = [{"cell": _place(cell), "change": float(x)} for cell, x in top]
        data["difference"] = float(effect.source.mean() - effect.base.mean())
        data["whole"] = whole_difference(effect)
        data |= {"valid": validity.valid, "reason": validity.reason}
        if site == "z":
            peak = effect.change.mean(dim=-1).abs().amax(dim=2).flatten()
            n_heads = len(effect.labels["head"])
            data["heads"] = [divmod(int(k), n_heads) for k in peak.argsort(descending=True)[:MOST_HEADS]]
    notes = reduced_notes("patch", options, run)
    if is_deep(run):
        text = (
            f"{left_out(run, options)}: layers and tokens that the pictures do not show. The commands below patch all "
        )
        notes += (f"{text}of them without --layers and --positions.",)
    return SectionData(data, tuple(pictures), tuple(sources), notes)


def places_in(run: Run, length: int, at: int, partner: int) -> dict[str, Places]:
    """Return, by site, the few places that are patched in a deep model.

    resid_pre: layers at equal distances, at the tokens of step `at`, of the step before and of the partner, up to
    the token that predicts the answer. z: at that token only.
    """
    from interp.tasks import Role

    batch, layers = run.sample(1, size(run, length), 0), shown_layers(run.raw.config.num_hidden_layers)
    read = int(batch.at(Role.OUTPUT, at)[0]) - 1
    near = [p for p in range(read + 1) if int(batch.step[p]) in (at, at - 1, partner)]
    positions = tuple(map(str, sorted({*near, read})))
    return {"resid_pre": Places(tuple(layers), positions), "z": Places(positions=(str(read),))}


def _place(cell: tuple[str | int, ...]) -> str:
    """Return a cell as text, such as "layer 1 at output label 25" or "L1H4 at output label 25"."""
    *where, pos = cell
    name = "layer {}" if len(where) == 1 else "L{}H{}"
    return f"{name.format(*where)} at {str(pos).partition(': ')[2] or pos}"


def _planned(run: Run, verb: PatchCommand, length: int) -> Sweep:
    from interp.patching import logit_diff, plan
    from interp.tasks import counterfactual

    if run.format.task == "parity":
        clean, corrupted = verb.pair(run)
        metric = logit_diff(clean, step=verb.step)
    else:
        clean = run.sample(verb.prompts, size(run, length), verb.seed)
        corrupted = counterfactual.redraw(clean, verb.seed + 1)
        metric = logit_diff(clean, step=verb.step, against=corrupted)
    places = places_of(verb, clean)
    return plan(run.raw, clean, corrupted, verb.site, metric, verb.layers, places, memory=verb.bytes)


def _patch_caption(site: str, story: str, at: int, few: bool) -> str:
    what = {
        ("resid_pre", False): "The residual stream before each layer at each token",
        ("resid_pre", True): "The residual stream before some layers at the tokens of a few steps",
        (
            "z",
            False,
        ): "Each head's output (z) at each position; shown first: the position with the largest effect per head",
        ("z", True): f"Each head's output (z) at the token that predicts step {at}",
    }[site, few]
    return (
        f"{what}, patched one at a time from the clean prompt into {story}. Metric: margin of the answer at step {at}."
    )
