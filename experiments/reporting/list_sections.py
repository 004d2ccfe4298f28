"""Sections of a report on lists or recall: the verdict with its shares, patching on the spans, and the heads."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.reporting.reduced import shown_layers
from experiments.reporting.section import Picture, SectionData, Source
from experiments.support.binding_results import file_of, measured_list
from experiments.support.kept_groups import KeptGroups
from experiments.support.list_results import ARMS
from experiments.support.own_lists import list_options
from interp.support.printable import visible

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from experiments.support.own_lists import ListTask
    from interp.models import Run
    from interp.patching import PatchEffect
    from probes.binding import Trial

# Prompts of the verdict's arms and of patching: default, and with --quick.
PROMPTS = {"verdict": (128, 32), "patch": (8, 4)}
MOST_HEADS = 4
ORDINALS = {2: "second", 3: "third"}


def verdict_section(
    run: Run,
    options: ReportCommand,
    task: ListTask,
    trials: Sequence[Trial],
    step: Callable[[str], None],
    work: Path,
) -> SectionData:
    """Build the section on the verdict: read from a file of the same weights, or measured in pieces kept in `work`."""
    from experiments.drawing.lists import list_shares
    from experiments.support.list_pieces import ListSource, ListWork
    from interp.views import as_view
    from probes.binding import binding_verdict

    items, few = options.items, PROMPTS["verdict"][options.quick]
    command = f"mnemoscope verdict {options.said(run)} --task {shlex.quote(str(options.task))} --items {items}"
    command += f" --fillers {options.fillers}" * bool(options.fillers) + f" --prompts {few} --seed {options.seed}"
    found, made, notes = stored_verdict(run, options, task)
    if found is None:
        source = ListSource.of(options.names[0], task, few, options)
        measured = measured_list(ListWork(run, source, trials, few, work, step), KeptGroups(work))
        judged = binding_verdict(run.name, measured)
        if options.quick and judged.measured.refusal is None:
            notes += (fewer_prompts("verdict", "The intervals are wider, and more addresses may stay undecided."),)
        found, made = (
            {"run": run.name, "seed": options.seed, **judged.to_json()},
            "computed for this report" + ", by --quick" * options.quick,
        )
    else:
        command = found["provenance"]["command"]
    pictures = ()
    if found["refusal"] is None:
        title = "By what does the model find the item?"
        note = "intervals over prompts, jointly 95 %; grey: as if absent; cross: control; open: traded in the query"
        figure, narrow = (list_shares([found], f"{title}\n{note}", phone) for phone in (False, True))
        alt = "; ".join(f"{name}: {share['value']['value']:.2f}" for name, share in found["shares"].items())
        caption = (
            "Share of the effect of trading the two values in the list, which moves the answer under every address. "
            "0: the intervention leaves the answer as it is; 1: it moves it as far. Prompts drawn with seed "
            f"{found['seed']}."
        )
        pictures = (Picture(as_view(figure, title, alt, narrow=narrow), caption),)
    return SectionData(found, pictures, (Source("verdict", command, options.seed, made),), notes)


def fewer_prompts(section: str, means: str) -> str:
    """Return the note on the prompts of a section that --quick leaves out, and what follows from that."""
    usual, few = PROMPTS[section]
    return f"Left out by --quick: {usual - few} of the {usual} prompts of this section. {means}"


def stored_verdict(
    run: Run, options: ReportCommand, task: ListTask
) -> tuple[dict[str, Any] | None, str, tuple[str, ...]]:
    """Return a verdict on this task of the usual number of prompts, and its origin; None where none fits.

    It is from the run's or the shipped results. Notes say why other files were not used.
    """
    from experiments.support.finished_verdicts import finished_list_verdict

    if options.fresh:
        return None, "", ()
    asked = list_options(task, options.items, PROMPTS["verdict"][0], options.fillers)
    stored, reasons = finished_list_verdict(run, asked, file_of(task, options.items), options.seed, None)
    notes = tuple(f"{_place(path)} was not used: {visible(why)}." for path, why in reasons.items())
    if stored is None:
        return None, "", notes
    made = stored.data["provenance"]
    origin = f"read from {_place(stored.path)}, made {made['date']} at commit {made['commit']}"
    return stored.data, origin, notes


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def patch_section(run: Run, options: ReportCommand, trial: Trial, found: dict[str, Any]) -> SectionData:
    """Build the section on patching: the template's spans by layer, and every head at the last position.

    The corrupted prompts are those of the arm that exceeds its control most. Raises `ValueError` where no arm was
    measured.
    """
    from interp import views
    from interp.patching import logit_diff, patch
    from probes.binding.edits import edit_of

    arm = clearest_arm(found["shares"])
    some = trial.first(PROMPTS["patch"][options.quick])
    clean, places = some.lookups.prompts, span_positions(some)
    corrupted = clean.with_tokens(edit_of(some, arm).tokens)
    metric = logit_diff(some.lookups.answer(some.query), some.lookups.answer(some.target))
    about = f"'{arm}' at query {some.query}, target {some.target}, {len(clean)} prompts"
    pictures, sources, data = [], [], {"arm": arm, "query": some.query, "target": some.target, "heads": []}
    n_layers = run.raw.config.num_hidden_layers
    layers = shown_layers(n_layers)
    grids = (
        ("resid_pre", list(places), layers),
        ("z", [clean.n_pos - 1], None),
    )
    for site, positions, layers in grids:
        effect = patch(run, clean, corrupted, site, metric, layers, positions, seed=options.seed)
        if site == "resid_pre":
            effect = replace(effect, labels={**effect.labels, "pos": tuple(places.values())})
            every = shown_layers(n_layers).step
            which = "each layer" if every == 1 else f"every {ORDINALS.get(every, f'{every}th')} layer"
            caption = f"The residual stream before {which}, at each span of the template, patched one at a time."
        else:
            caption = "The output z of each head at the last token, patched one at a time."
            data["heads"] = strongest_heads(effect)
            data["whole"] = float((effect.source - effect.base).mean())
        title = f"What does patching {site} change? {run.name}"
        caption += f" Clean prompts into those of the arm {about}, drawn with seed {options.seed}."
        caption += f" The metric: the logit of item {some.query}'s value minus that of item {some.target}'s."
        pictures.append(Picture(views.effect(effect, title), caption))
        assert effect.checks is not None
        made = f"computed for this report; {effect.checks.spot_cells} random cells equal the literal loop to "
        made += f"{effect.checks.spot_difference:.0e}"
        code = f"patch(run, clean, edit_of(trial, {arm!r}), {site!r}, logit_diff(answer, other))"
        sources.append(Source(f"patching {site}", code, options.seed, made, code=True))
    notes = (fewer_prompts("patch", "The values vary more from seed to seed."),) if options.quick else ()
    return SectionData(data, tuple(pictures), tuple(sources), notes)


def clearest_arm(shares: dict[str, Any]) -> str:
    """Return the arm of one address that exceeds its control most. Raises `ValueError` where none was measured."""
    arms = {arm: shares[arm]["excess"]["value"] for arm in ARMS if arm in shares}
    if not arms:
        raise ValueError("no address of this template was measured")
    return max(arms, key=lambda name: arms[name])


def span_positions(trial: Trial) -> dict[int, str]:
    """Return the positions of labels and values in list and query, and the last token, with their names."""
    found, names = trial.lookups, {}
    for kind, spans in (("list", found.labels), ("query", found.query_labels)):
        names |= {p: f"{kind} label {item}" for item, span in spans.items() for p in span}
    for kind, values in (("list", found.values), ("query", found.query_values)):
        names |= {p: f"{kind} value {item}" for item, p in values.items()}
    last = found.prompts.n_pos - 1
    names[last] = f"{names[last]}, last token" if last in names else "last token"
    return dict(sorted(names.items()))


def strongest_heads(effect: PatchEffect) -> list[dict[str, Any]]:
    """Return the heads whose patch changes the margin most: layer, head and change, the largest first."""
    change = effect.change.mean(dim=-1).flatten(1)  # [layer head]: one position
    order = change.abs().flatten().argsort(descending=True)[:MOST_HEADS].tolist()
    places = [divmod(k, change.shape[1]) for k in order]
    return [{"layer": layer, "head": head, "change": float(change[layer, head])} for layer, head in places]


def heads_section(run: Run, options: ReportCommand, trial: Trial, heads: Sequence[dict[str, Any]]) -> SectionData:
    """Build the section on the heads: to which item each attends from the last token, and its whole pattern."""
    from interp import views
    from interp.capturing import capture

    some = trial.first(PROMPTS["patch"][options.quick])
    layers = sorted({head["layer"] for head in heads})
    seen = capture(run, some.lookups.prompts, pattern=layers)
    rows = [{**head, **attended(some, seen.pattern[head["layer"]][:, head["head"], -1])} for head in heads]
    pictures = []
    for layer in layers:
        mine = [head["head"] for head in heads if head["layer"] == layer]
        caption = f"Layer {layer}, head{'s' * (len(mine) > 1)} {', '.join(map(str, mine))}, first prompt."
        pictures.append(Picture(views.attention(seen, layer, heads=mine, viewer="canvas"), caption))
    code = f"views.attention(capture(run, prompts, pattern={layers}), layer)"
    source = Source(
        "attention", code, options.seed, f"computed for this report, {len(some.lookups.prompts)} prompts", code=True
    )
    notes = (fewer_prompts("patch", "The mean weights vary more from seed to seed."),) if options.quick else ()
    return SectionData({"heads": rows}, tuple(pictures), (source,), notes)


def attended(trial: Trial, row: Any) -> dict[str, float]:
    """Return the mean attention `[batch src]` of the last token to each kind of token."""
    found, weights = trial.lookups, row.double().mean(dim=0)

    def mass(positions: Sequence[int]) -> float:
        return float(weights[sorted(set(positions))].sum()) if positions else 0.0

    before = [item for item in (trial.query - 1,) if item in found.values]
    others = [item for item in found.values if item not in (trial.query, trial.query - 1)]
    return {
        "value asked for": mass([found.values[trial.query]]),
        "its label": mass(found.labels.get(trial.query, ())),
        "item before it": mass([*found.labels.get(trial.query - 1, ()), *(found.values[i] for i in before)]),
        "other items": mass([p for item in others for p in (*found.labels.get(item, ()), found.values[item])]),
        "query": mass([*(p for span in found.query_labels.values() for p in span), *found.query_values.values()]),
        "first token": mass([0]),
    }
