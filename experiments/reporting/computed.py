"""Sections of maps, probes and attention, computed for the report in seconds each."""

from __future__ import annotations

from collections.abc import Callable
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.reporting.reduced import left_out, prompts_of, reduced_notes
from experiments.reporting.section import Picture, SectionData, Source
from experiments.reporting.shown import largest_sources, targets
from experiments.reporting.stored import now
from experiments.support.verdict_defaults import fits, is_deep

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run

# Length of a prompt that fits on a screen: 34 tokens with labels.
READABLE = 8
# Layers of a deep model in which probes are trained; each takes some ten seconds.
DEEP_LAYERS = 8
# Number of heads shown where there is no circuit, and the statistics shown per head.
MOST_HEADS = 4
READ = (
    "matching_label",
    "after_matching_label",
    "due_input",
    "previous_token",
    "itself",
    "labels",
    "inputs",
    "outputs",
    "output_share",
)


def size(run: Run, n: int) -> int | tuple[int, int]:
    """Return a length as the task takes it: for addition, both operands have n digits."""
    return (n, n) if run.format.task == "addition" else n


def map_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the map section: gradient x input, as in the paper's Figure 5."""
    from interp import views
    from interp.attribution import gradient_x_input

    length, many = room(run, options.map_length), prompts_of("map", options, run)
    batch = run.sample(many, size(run, length), options.seed)
    against = None if len(batch.format.outputs) == 2 else run.sample(many, size(run, length), options.seed + 1)
    attribution = gradient_x_input(run.raw, batch, against=against)
    title = f"Which tokens does each answer depend on? {run.name}, length {length}"
    code = f"views.attribution(gradient_x_input(run.raw, run.sample({many}, {size(run, length)}, seed={options.seed})))"
    caption = (
        "One column per answer, one row per token before it; a cell shows how much the answer depends on the token. "
        "Outlined: the tokens that the right answer follows from, bit i and the parity before it. Signs cancel in the "
        "mean over prompts; the list also offers absolute values and single prompts."
    )
    source = Source("map", code, options.seed, now(options), code=True)
    data = {"length": length, "largest": largest_sources(attribution)}
    return SectionData(
        data,
        (Picture(views.attribution(attribution, title=title), caption),),
        (source,),
        reduced_notes("map", options, run),
    )


def probe_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the probe section (M8 decoding): probes at input labels, with controls of equal difficulty."""
    from interp.tasks import Role
    from probes import views
    from probes.arms.m08_decoding import decode, varying_layers

    if run.format.task != "parity":
        why = "Left out: the probes' controls are prefix parities and bits, and addition has neither."
        return SectionData(notes=(why,))
    length, many = room(run, options.length), prompts_of("probes", options, run)
    batch, role = run.sample(many, length, options.seed), Role.INPUT_LABEL
    if not (batch.role == role).any():
        return SectionData(notes=("Left out: probes (M8 decoding) read labels, and this format has none.",))
    layers, notes = varying_layers(run.raw, batch, role), reduced_notes("probes", options, run)
    chosen = ""
    if is_deep(run) and len(layers) > DEEP_LAYERS:
        every = layers
        layers = every[:: -(-len(every) // DEEP_LAYERS)]
        chosen = f" layers={layers},"
        notes += (f"{left_out(run, options)}: probes in {len(every) - len(layers)} of the {len(every)} layers.",)
    probes = decode(run.raw, batch, layers=layers, seed=options.seed)
    sample = f"run.sample({many}, {length}, seed={options.seed})"
    code = f"probes.views.probes(decode(run.raw, {sample},{chosen} seed={options.seed}))"
    caption = (
        "Accuracy of linear probes at input labels on held-out prompts. Controls: functions of the same history of "
        "equal difficulty, and a model with random weights. Layer 0 is the embedding."
    )
    data = {
        "length": length,
        "probes": [d.to_json() | {"code": None, "control_code": None} for d in probes],
    }
    title = f"What do probes read at the input labels of {run.name} (length {length})?"
    source = Source("probes (M8 decoding)", code, options.seed, now(options), code=True)
    return SectionData(data, (Picture(views.probes(probes, title), caption),), (source,), notes)


def attention_part(
    run: Run, options: ReportCommand, work: Path, step: Callable[[str], None], heads: list[tuple[int, int]], chosen: str
) -> SectionData:
    """Build the attention section: the important heads on a short prompt, and all heads on a longer one."""
    from interp import views
    from interp.capturing import capture
    from interp.circuits import describe_heads
    from interp.circuits.attention_stats import words_of
    from interp.tasks import ANSWER_ROLES, Role

    short, longer, many = room(run, READABLE), room(run, options.length), prompts_of("heads", options, run)
    batch = run.sample(1, size(run, short), options.seed)
    seen = capture(run.model, batch, pattern=sorted({layer for layer, _ in heads}))
    pictures = []
    for layer in sorted(seen.pattern):
        mine = [h for at, h in heads if at == layer]
        who = f"Layer {layer}, head{'s' * (len(mine) > 1)} {', '.join(map(str, mine))}"
        caption = f"{who} ({chosen}), one prompt. Click a head, then a cell or a token, to read its weight."
        pictures.append(Picture(views.attention(seen, layer, heads=mine), caption))
    answers = [p for p in range(batch.n_pos) if Role(int(batch.role[p])) in ANSWER_ROLES]
    answer = answers[len(answers) // 2]
    dest = answer - 1  # an answer's logits are one position before it
    layer, head = max(heads, key=lambda at: float(seen.pattern[at[0]][0, at[1], dest, :dest].max()))
    row = views.tokens(seen.pattern[layer][:, head], batch, 0, dest, f"L{layer}H{head} from {batch.name(dest)}")
    caption = (
        f"One row of L{layer}H{head}, which has the largest weight at the position that predicts {batch.name(answer)}."
    )
    pictures.append(Picture(row, caption))
    unit = "digits per operand" if run.format.task == "addition" else "bits"
    some = True if not is_deep(run) else sorted(seen.pattern)
    all_heads = capture(run.model, run.sample(1, size(run, longer), options.seed), pattern=some)
    every = "Every head" if some is True else "Every head of the layers above"
    caption = f"{every} on a longer prompt, {longer} {unit}. Click a head to see it large below."
    pictures.append(Picture(views.attention(all_heads, sorted(all_heads.pattern)), caption))
    statistics = describe_heads(run.raw, run.sample(many, size(run, longer), options.seed))
    role = statistics.answered_at
    table = [
        {
            "layer": layer,
            "head": head,
            "attends to": statistics.name(layer, head),
            **{words_of(name, statistics.after_label): statistics.value(layer, head, role, name) for name in READ},
        }
        for layer, head in statistics.names()
    ]
    after = words_of("after_matching_label", statistics.after_label)
    table = without_repeated(table, after, words_of("inputs", ""))
    table = without_repeated(table, words_of("due_input", statistics.after_label), after)
    title = f"Where does each head attend when an answer is predicted (at the {role})?"
    caption = (
        "Mean attention to each kind of token, and the norm of the head's output divided by the residual's (output "
        "share; it can be above 1)."
    )
    pictures.append(Picture(views.head_table(table, "output share", title), caption))
    seed = options.seed
    one, all_ = (f"run.sample(1, {size(run, n)}, seed={seed})" for n in (short, longer))
    codes = (
        ("attention", f"views.attention(capture(run.model, {one}, pattern=True), layer={layer})"),
        ("every head", f"views.attention(capture(run.model, {all_}, pattern={some}), {sorted(all_heads.pattern)})"),
        ("heads", f"describe_heads(run.raw, run.sample({many}, {size(run, longer)}, seed={seed})).to_dataframe()"),
    )
    sources = tuple(Source(what, code, seed, now(options), code=True) for what, code in codes)
    return SectionData(
        {"heads": heads, "does": targets(statistics, heads)},
        tuple(pictures),
        sources,
        reduced_notes("heads", options, run),
    )


def without_repeated(table: list[dict], column: str, other: str) -> list[dict]:
    """Return rows without a column that equals another in each row, as where all labels are the same token."""
    if not all(column in row and other in row for row in table):
        return table
    if all(isclose(row[column], row[other], abs_tol=1e-5) for row in table):
        return [{name: value for name, value in row.items() if name != column} for row in table]
    return table


def room(run: Run, length: int) -> int:
    """Return the length, or the largest smaller one that fits the model."""
    longest = next((n for n in range(length, 0, -1) if fits(run, n)), None)
    if longest is None:
        raise ValueError(f"{run.name} takes no prompt of {run.format}, not even of length 1")
    return longest
