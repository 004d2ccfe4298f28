"""What may a report say? The question, the verdict, how often such a verdict is wrong, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run

GOOD = 0.95  # step accuracy of a model that does the task
ROLES = {
    "anchor": "its identity is an address",
    "placeholder": "its position stores a result that later tokens read",
    "sink": "it takes attention and carries nothing",
}


def question(run: Run) -> list[str]:
    """What is asked of a run, and what the run is."""
    config = run.raw.config
    size = sum(p.numel() for p in run.raw.parameters()) / 1e6
    recipe = run.record.get("recipe", {})
    kind = (
        f"{config.model_type} with {run.family} positions, {config.num_hidden_layers} layers, "
        f"{config.hidden_size} wide, {size:.2f} million parameters"
    )
    unit = "digits" if run.format.task == "addition" else "bits"
    longest = recipe.get("longest")
    trained = f", trained on {run.format.task} of at most {longest} {unit}" if longest else ""
    length = (3, 3) if run.format.task == "addition" else 4
    asked = (
        "**What do the labels do inside this model?** A label can be an **anchor** (its identity is an address), "
        "a **placeholder** (its position stores a result that later tokens read), a **sink** (it takes attention and "
        "carries nothing), a mixture, or unused."
        if run.format.labels
        else "This format has **no labels**, so their role cannot be asked; what can be asked is how far the model "
        "gets without them, and what its answers depend on."
    )
    words = [
        f"`{run.name}` is a transformer ({kind}){trained}. {run.format.meaning} A prompt of its task: "
        f"`{run.sample(1, length, 0).text(0)}`.",
        asked,
    ]
    if share := recipe.get("rehearsal"):
        words.append(
            f"Trained with rehearsal: {share:.0%} of its tokens were in-context recall of up to "
            f"{recipe['rehearsal_longest']} pairs. Lengths past {longest} are therefore new to parity, not to "
            "addressing."
        )
    return words


def answer(data: dict) -> str:
    """The verdict in a sentence."""
    lengths = " and ".join(_length(at["length"]) for at in data["by_length"])
    match data["verdict"]:
        case "not-applicable":
            words = "no role is judged, because there are no labels or the model cannot do the task"
        case "undecided":
            words = "the evidence does not decide"
        case "unresolved":
            words = "the arms of the evidence contradict each other"
        case label:
            words = "; ".join(f"{ROLES[r]}" for r in ROLES if r in label) or "no role was found"
    return f"Verdict at length {lengths}: **{data['verdict']}** ({words})."


def in_short(name: str, data: dict, accuracy: dict) -> str:
    """The verdict, its reach and how far the model works, in two sentences."""
    steps = [r for r in accuracy["accuracy"] if r["metric"] == "step" and r["mode"] == "forced"]
    far = [r["length"] for r in steps if all(s["value"] >= GOOD for s in steps if s["length"] <= r["length"])]
    longest = accuracy.get("trained_to")
    reach = f"to length {max(far)}" if far else "at no length that was measured"
    trained = f" (it was trained to {longest})" if longest else ""
    lengths = " and ".join(_length(at["length"]) for at in data["by_length"])
    judged = f"the labels are judged **{data['verdict']}**"
    if data["verdict"] == "not-applicable":
        judged = "no role of labels is judged"
    return (
        f"In `{name}`, at length {lengths}, {judged}. Under teacher forcing, its steps are at least "
        f"{GOOD:.0%} right {reach}{trained}."
    )


def role_lines(data: dict) -> list[str]:
    """Each role, its status and why."""
    return [
        f"**{name}: {role['status']}.** {(role['reason'] or 'no reason is given').replace('+-', '±')}."
        for name, role in data["roles"].items()
    ]


def claims(data: dict) -> list[str]:
    """What may be claimed of a verdict, and what not."""
    unit = "prompts of one model" if data["replication"] == "prompts" else f"{data['n_models']} models"
    return [
        f"**May be claimed:** {data['may_claim'] or 'nothing about roles'}.",
        f"**May not be claimed:** {data['may_not_claim']}. Intervals are over {unit}"
        + (", so nothing here speaks for models of other seeds." if data["replication"] == "prompts" else "."),
    ]


def how_often_wrong(data: dict, counted: dict) -> list[str]:
    """Wrong verdicts on planted models of known mechanism, with their counts."""
    rate, never = counted["rates"]["wrong confident label"], counted["rates, never tuned"]["wrong confident label"]
    open_, label = counted["rates"]["undecided, all"], data["verdict"]
    called = {name: row.get(label, 0) for name, row in counted["confusion"].items()}
    right = sum(n for name, n in called.items() if counted["expected"][name] == label)
    words = [
        f"The same code judged {counted['cases']} models whose mechanism was planted ({counted['mechanisms']} "
        f"mechanisms, {counted['variants']} variants each). It gave a wrong confident label to "
        f"**{rate['hits']} of {rate['n']}** (95 % interval {_share(rate)}); among mechanisms that "
        f"no threshold was tuned on, to {never['hits']} of {never['n']} ({_share(never)}). "
        f"{open_['hits']} of {open_['n']} were left undecided or unresolved."
    ]
    if label in ("undecided", "unresolved", "not-applicable"):
        words.append(f"**{label}** claims nothing, so it cannot be wrong; it may be unhelpful.")
    elif total := sum(called.values()):
        words.append(f"Of the planted models that it called **{label}**, {right} of {total} were.")
    else:
        words.append(f"No planted model was called {label}: these counts say nothing of how often that is wrong.")
    whole = counted["coverage"]["all"]
    words.append(
        f"Nominal 95 % intervals held the truth in {whole['covered']} of {whole['intervals']} cases. Planted models "
        "are small and made by hand inside GPT-2 and GPT-NeoX; the counts are error rates there, not the chance "
        "that this verdict on this model is wrong."
    )
    if data["margins"]["version"] != counted["margins"]["version"]:
        then, today = counted["margins"]["version"], data["margins"]["version"]
        words.append(f"**The counts are of margins {then}, the verdict is of {today}.**")
    return words


def verdict_row(name: str, data: dict) -> list[str]:
    """A run in a table of verdicts: label, then each role."""
    cells = []
    for role in ROLES:
        found = data["roles"][role]
        cells.append(found["status"] + (f" {_interval(found['rho'], found['ci'])}" if found["rho"] is not None else ""))
    return [f"`{name}`", f"**{data['verdict']}**", *cells]


def accuracy_rows(name: str, data: dict, lengths: Sequence[int]) -> list[list[str]]:
    """Step accuracy and exact match at some lengths."""
    rows = []
    for mode in dict.fromkeys(r["mode"] for r in data["accuracy"]):
        for metric, words in (("step", "step accuracy"), ("exact", "exact match"), ("final", "final bit")):
            values = {r["length"]: r["value"] for r in data["accuracy"] if (r["mode"], r["metric"]) == (mode, metric)}
            rows.append([f"`{name}`", mode, words, *(f"{values[n]:.3f}" if n in values else "" for n in lengths)])
    return rows


def evidence_rows(data: dict) -> list[list[str]]:
    """Every arm of a verdict: what was done, what came of it, and of its matched control."""
    return [
        [
            _length(e["length"]),
            e["arm"],
            e["name"],
            e["quantity"],
            _estimate(e["value"]),
            _estimate(e["control"]),
            str(e["n"]),
        ]
        for e in data["evidence"]
    ]


def erased(data: dict) -> str:
    """What erasing does to what a probe reads: the second half of M8."""
    found = [e for e in data["evidence"] if e["arm"] == "M8" and e["quantity"] == "accuracy lost"]
    said = "; ".join(
        f"at length {_length(e['length'])}, {_estimate(e['value'])} of accuracy (control {_estimate(e['control'])})"
        for e in found
    )
    return f"Erasing prefix parity at input labels (M8 of the verdict) costs, {said}." if said else ""


def offsets(data: dict) -> str:
    """Which bit decides a step's answer, where that was asked."""
    shares = {row["length"]: 0.0 for row in data.get("offsets", ())}
    shares |= {row["length"]: row["share"] for row in data.get("offsets", ()) if row["offset"] == 0}
    if not shares:
        return ""
    said = ", ".join(f"{share:.3f} at length {n}" for n, share in shares.items())
    return (
        f"Bit by bit, each was edited to see which step's answer turns over. Share of steps that read their own bit: "
        f"{said} ({data['offset_prompts']} prompts each)."
    )


def _share(rate: dict) -> str:
    interval = rate["interval"]
    return f"{100 * max(interval['low'], 0):.1f} % to {100 * interval['high']:.1f} %"


def _interval(value: float, bounds: Sequence[float | None]) -> str:
    low, high = ("unbounded" if b is None else f"{b:.3f}" for b in bounds)
    return f"{value:.3f} [{low}, {high}]"


def _estimate(found: dict | None) -> str:
    return "" if found is None else _interval(found["value"], [found["low"], found["high"]])


def _length(length: int | Sequence[int]) -> str:
    return str(length) if isinstance(length, int) else " + ".join(map(str, length))
