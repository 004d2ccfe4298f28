"""What do maps, patches, probes and heads of a run look like? Computed for the report, in seconds each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.patch import PatchCommand
from experiments.reporting.section import Picture, SectionData, Source
from experiments.reporting.stored import fitting, now

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run
    from interp.patching import PatchEffect

# Prompts: of the map, of patches, of probes, of descriptions; and what --quick makes of them.
PROMPTS = {"map": (32, 8), "patch": (16, 8), "probes": (300, 128), "heads": (32, 16)}
# A prompt that can be read whole: 34 tokens with labels.
READABLE = 8
# Heads that are shown where no circuit names them, and statistics of them that a person reads.
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


def prompts_of(what: str, options: ReportCommand) -> int:
    """How many prompts a section takes."""
    return PROMPTS[what][options.quick]


def size(run: Run, n: int) -> int | tuple[int, int]:
    """A length as the task takes it: both operands of an addition have as many digits."""
    return (n, n) if run.format.task == "addition" else n


def map_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """The paper's map: gradient x input."""
    from interp import views
    from interp.attribution import gradient_x_input

    length, many = _room(run, options.map_length), prompts_of("map", options)
    batch = run.sample(many, size(run, length), options.seed)
    against = None if len(batch.format.outputs) == 2 else run.sample(many, size(run, length), options.seed + 1)
    found = gradient_x_input(run.raw, batch, against=against)
    title = f"{run.name}, length {length}: which tokens each answer depends on"
    code = f"views.attribution(gradient_x_input(run.raw, run.sample({many}, {size(run, length)}, seed={options.seed})))"
    words = (
        "A column for each answer, a row for each token before it. Outlined: where the right answer comes from, bit i "
        "and the parity before it. Off the outlines, the answer depends on something else. Signs cancel in the mean; "
        "the list has absolute values and single prompts, too."
    )
    source = Source("map", code, options.seed, now(options), code=True)
    return SectionData({"length": length}, (Picture(views.attribution(found, title=title), words),), (source,))


def patch_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """What moves the answer when it is put in from another run: the residual by position, heads by layer."""
    from interp import views

    length, many = _room(run, options.length), prompts_of("patch", options)
    at, partner = max(length // 2, 2), max(length // 4, 1)
    if run.format.task != "parity":
        corrupt, story = "redraw", "another random prompt"
    elif run.format.labels == "pool":
        corrupt, story = "swap_input_labels", f"the same prompt with input labels {at} and {partner} traded"
    else:
        corrupt, story = "flip_input", f"the same prompt with bit {at} flipped"
    pictures, sources, data = [], [], {"story": story, "step": at, "length": length, "heads": []}
    for site in ("resid_pre", "z"):
        verb = PatchCommand(
            run.name,
            site=site,
            length=length,
            step=at,
            partner=partner,
            corrupt=corrupt,
            prompts=many,
            seed=options.seed,
        )
        effect = _effect(run, verb, work, length)
        title = f"{run.name}, length {length}: what patching {site} at each place changes"
        pictures.append(Picture(views.effect(effect, title), _patch_words(site, story, at)))
        more = f" --partner {partner}" if "swap" in corrupt else ""
        command = (
            f"mnemoscope patch {options.said(run)} --site {site} --length {length} --step {at} --corrupt {corrupt}"
            f"{more} --prompts {many} --seed {options.seed}"
        )
        assert effect.checks is not None
        cells, gap = effect.checks.spot_cells, effect.checks.spot_difference
        made = f"{now(options)}; {cells} random cells equal the literal loop to {gap:.0e}"
        sources.append(Source(f"patching {site}", command, options.seed, made))
        data[site] = [{"cell": _place(cell), "change": float(x)} for cell, x in effect.top(3)]
        data["whole"] = float(effect.source.mean() - effect.base.mean())
        if site == "z":
            peak = effect.change.mean(dim=-1).abs().amax(dim=2).flatten()
            n_heads = len(effect.labels["head"])
            data["heads"] = [divmod(int(k), n_heads) for k in peak.argsort(descending=True)[:MOST_HEADS]]
    return SectionData(data, tuple(pictures), tuple(sources))


def _place(cell: tuple[str | int, ...]) -> str:
    """A cell in words: layer 1, "110: output label 25"; with a head, L1H4."""
    *where, pos = cell
    name = "layer {}" if len(where) == 1 else "L{}H{}"
    return f"{name.format(*where)} at {str(pos).partition(': ')[2] or pos}"


def _effect(run: Run, verb: PatchCommand, work: Path, length: int) -> PatchEffect:
    from interp.patching import logit_diff, plan
    from interp.tasks import counterfactual

    if run.format.task == "parity":
        clean, corrupted = verb.pair(run)
        metric = logit_diff(clean, step=verb.step)
    else:
        clean = run.sample(verb.prompts, size(run, length), verb.seed)
        corrupted = counterfactual.redraw(clean, verb.seed + 1)
        metric = logit_diff(clean, step=verb.step, against=corrupted)
    sweep = plan(run.raw, clean, corrupted, verb.site, metric, memory=verb.memory * 2**20)
    return verb.compute(sweep, work / f"patch-{verb.site}")


def _patch_words(site: str, story: str, at: int) -> str:
    what = {
        "resid_pre": "Every token's residual stream before every layer, one at a time",
        "z": "Every head's output at every position, one at a time; first the position that matters most for each head",
    }[site]
    return f"{what}, is put from the clean prompt into {story}; what is read is the margin of the answer at step {at}."


def probe_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """M8: what can be read off linearly, beside controls that are as hard."""
    from interp.tasks import Role
    from probes import views
    from probes.arms.m08_decoding import decode, varying_layers

    if run.format.task != "parity":
        why = "Left out: the probes' controls are prefix parities and bits, which addition does not have."
        return SectionData(notes=(why,))
    length, many = _room(run, options.length), prompts_of("probes", options)
    batch, role = run.sample(many, length, options.seed), Role.INPUT_LABEL
    if not (batch.role == role).any():
        return SectionData(notes=("Left out: M8 probes labels, and this format has none.",))
    found = decode(run.raw, batch, layers=varying_layers(run.raw, batch, role), seed=options.seed)
    sample = f"run.sample({many}, {length}, seed={options.seed})"
    code = f"probes.views.probes(decode(run.raw, {sample}, seed={options.seed}))"
    words = (
        "What a linear probe reads at input labels, on held-out prompts, beside functions of the same history that "
        "are as hard, and a model of random weights. Layer 0 is the embedding."
    )
    data = {
        "length": length,
        "probes": [d.to_json() | {"untrained": None, "code": None, "control_code": None} for d in found],
    }
    title = f"{run.name}, length {length}: what probes read at input labels"
    source = Source("probes (M8)", code, options.seed, now(options), code=True)
    return SectionData(data, (Picture(views.probes(found, title), words),), (source,))


def attention_part(
    run: Run, options: ReportCommand, work: Path, step: Callable[[str], None], heads: list[tuple[int, int]], chosen: str
) -> SectionData:
    """Where the heads that matter look: at a length that can be read, then all heads at a longer one."""
    from interp import views
    from interp.capturing import capture
    from interp.circuits import describe_heads
    from interp.tasks import ANSWER_ROLES, Role

    short, longer, many = _room(run, READABLE), _room(run, options.length), prompts_of("heads", options)
    batch = run.sample(1, size(run, short), options.seed)
    seen = capture(run.model, batch, pattern=sorted({layer for layer, _ in heads}))
    pictures = []
    for layer in sorted(seen.pattern):
        mine = [h for at, h in heads if at == layer]
        who = f"Layer {layer}, head{'s' * (len(mine) > 1)} {', '.join(map(str, mine))}"
        words = f"{who}: {chosen}. Choose a head, then a cell or a token, to have it read out."
        pictures.append(Picture(views.attention(seen, layer, heads=mine), words))
    answers = [p for p in range(batch.n_pos) if Role(int(batch.role[p])) in ANSWER_ROLES]
    answer = answers[len(answers) // 2]
    dest = answer - 1  # the logits of an answer stand one before it
    layer, head = max(heads, key=lambda at: float(seen.pattern[at[0]][0, at[1], dest, :dest].max()))
    row = views.tokens(seen.pattern[layer][:, head], batch, 0, dest, f"L{layer}H{head} from {batch.name(dest)}")
    words = f"Of these heads, L{layer}H{head} looks hardest where {batch.name(answer)} is answered: one row of it."
    pictures.append(Picture(row, words))
    whole = capture(run.model, run.sample(1, size(run, longer), options.seed), pattern=True)
    pictures.append(Picture(views.attention(whole, sorted(whole.pattern)), f"Every head, at length {longer}."))
    spoken = describe_heads(run.raw, run.sample(many, size(run, longer), options.seed))
    role = spoken.answered_at
    table = [
        {
            "layer": layer,
            "head": head,
            "does": spoken.name(layer, head),
            **{name: spoken.value(layer, head, role, name) for name in READ},
        }
        for layer, head in spoken.names()
    ]
    title = f"What each head does where answers are read ({Role(role).words})"
    words = "Mean attention by kind of target, and the head's output as a share of the residual."
    pictures.append(Picture(views.head_table(table, "output_share", title), words))
    seed = options.seed
    one, all_ = (f"run.sample(1, {size(run, n)}, seed={seed})" for n in (short, longer))
    codes = (
        ("attention", f"views.attention(capture(run.model, {one}, pattern=True), layer={layer})"),
        ("every head", f"views.attention(capture(run.model, {all_}, pattern=True), {sorted(whole.pattern)})"),
        ("heads", f"describe_heads(run.raw, run.sample({many}, {size(run, longer)}, seed={seed})).table()"),
    )
    sources = tuple(Source(what, code, seed, now(options), code=True) for what, code in codes)
    return SectionData({"heads": heads}, tuple(pictures), sources)


def _room(run: Run, length: int) -> int:
    """The length, or the longest below it that the model has room for."""
    found = next((n for n in range(length, 0, -1) if fitting(run, (n,))), None)
    if found is None:
        raise ValueError(f"{run.name} takes no prompt of {run.format}, not even of length 1")
    return found
