"""Sentences and table rows of a report: the question, the verdict, and the verdict's error rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probes.arms.registry import ARMS
from probes.evidence import find_rows
from probes.keys import ERASE_STATE

if TYPE_CHECKING:
    from interp.models import Run

GOOD = 0.95  # step accuracy from which a model counts as able to do the task
ROLES = {
    "anchor": "its identity is an address",
    "placeholder": "its position stores a result that later tokens read",
    "sink": "it takes attention and carries nothing",
}


def question(run: Run) -> list[str]:
    """Return the paragraphs that describe the run and the question."""
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
    task_question = (
        "**What do the labels do inside this model?** A label can be an **anchor** (its identity is an address), "
        "a **placeholder** (its position stores a result that later tokens read), a **sink** (it takes attention and "
        "carries nothing), a mixture, or unused."
        if run.format.labels
        else "This format has **no labels**, so no role can be tested. The report shows how far the model gets without "
        "them and what its answers depend on."
    )
    sentences = [
        f"`{run.name}` is a transformer ({kind}){trained}. {run.format.meaning} A prompt of its task: "
        f"`{run.sample(1, length, 0).text(0)}`.",
        task_question,
    ]
    if share := recipe.get("rehearsal"):
        sentences.append(
            f"Trained with rehearsal: {share:.0%} of its tokens were in-context recall of up to "
            f"{recipe['rehearsal_longest']} pairs. Lengths above {longest} are therefore new to parity, not to lookup."
        )
    return sentences


def answer(data: dict) -> str:
    """Return the verdict as one sentence."""
    lengths = " and ".join(_length(at["length"]) for at in data["by_length"])
    match data["verdict"]:
        case "not-applicable":
            meaning = "no role is judged: there are no labels, or the model cannot do the task"
        case "undecided":
            meaning = "the evidence does not decide"
        case "unresolved":
            meaning = "arms of the evidence contradict each other"
        case label:
            meaning = "; ".join(f"{ROLES[r]}" for r in ROLES if r in label) or "no role was found"
    return f"Verdict at length {lengths}: **{data['verdict']}** ({meaning})."


def in_short(name: str, data: dict, accuracy: dict) -> str:
    """Return the verdict and the lengths at which the model works, in three sentences."""
    steps = [r for r in accuracy["accuracy"] if r["metric"] == "step" and r["mode"] == "forced"]
    far = [r["length"] for r in steps if all(s["value"] >= GOOD for s in steps if s["length"] <= r["length"])]
    longest = accuracy.get("trained_to")
    reach = f"to length {max(far)}" if far else "at none of the measured lengths"
    trained = f" (it was trained to {longest})" if longest else ""
    lengths = " and ".join(_length(at["length"]) for at in data["by_length"])
    judged = f"the labels are judged **{data['verdict']}**"
    if data["verdict"] == "not-applicable":
        judged = "no role is judged"
    return (
        f"In `{name}`, at length {lengths}, {judged}. Teacher-forced step accuracy is at least {GOOD:.0%} "
        f"{reach}{trained}.{_whole_solutions(accuracy['accuracy'])}"
    )


def _whole_solutions(rows: list[dict]) -> str:
    """Return the exact match at the longest length as a sentence: labels given, and written where they are measured."""
    exact = [row for row in rows if row["metric"] == "exact"]
    if not exact:
        return ""
    longest = max(row["length"] for row in exact)
    kinds = {"forced": "with labels given", "written": "with labels that the model writes"}
    values = {row["mode"]: row["value"] for row in exact if row["length"] == longest}
    shares = [f"{values[mode]:.2f} {text}" for mode, text in kinds.items() if mode in values]
    if "written" not in values:
        shares = [f"{value:.2f}" for value in values.values()]
    return f" Share of whole solutions that are right at length {_length(longest)}: {', '.join(shares)}."


def role_lines(data: dict) -> list[str]:
    """Return one line per role: its status and the reason."""
    return [
        f"**{name}: {_status(role)}.** {(role['reason'] or 'no reason is given').replace('+-', '±')}."
        for name, role in data["roles"].items()
    ]


def _status(role: dict) -> str:
    """Return a role's status; of the sink, that on answers and that on margins where both were measured.

    >>> _status({"status": "ABSENT", "margins": {"status": "PRESENT"}})
    'ABSENT on answers, PRESENT on margins'
    """
    match role:
        case {"margins": {"status": str(on_margins)}}:
            return f"{role['status']} on answers, {on_margins} on margins"
    return role["status"]


def claims(data: dict) -> list[str]:
    """Return what the verdict allows to claim, and what it does not."""
    unit = "prompts of one model" if data["replication"] == "prompts" else f"{data['n_models']} models"
    return [
        f"**May be claimed:** {data['may_claim'] or 'nothing about roles'}.",
        f"**May not be claimed:** {data['may_not_claim']}. Intervals are over {unit}"
        + (", so nothing here holds for models of other seeds." if data["replication"] == "prompts" else "."),
    ]


def how_often_wrong(data: dict, counted: dict) -> list[str]:
    """Return the counts of wrong verdicts on planted models of known mechanism."""
    rate, never = counted["rates"]["wrong confident label"], counted["rates, never tuned"]["wrong confident label"]
    open_, label = counted["rates"]["undecided, all"], data["verdict"]
    called = {name: row.get(label, 0) for name, row in counted["confusion"].items()}
    right = sum(n for name, n in called.items() if counted["expected"][name] == label)
    sentences = [
        f"The same code judged {counted['cases']} models with a planted mechanism ({counted['mechanisms']} "
        f"mechanisms, {counted['variants']} variants each). It gave a wrong confident label to "
        f"**{rate['hits']} of {rate['n']}** (95 % interval {_share(rate)}); among mechanisms never used for "
        f"tuning, to {never['hits']} of {never['n']} ({_share(never)}). "
        f"{open_['hits']} of {open_['n']} were left undecided or unresolved."
    ]
    if label in ("undecided", "unresolved", "not-applicable"):
        sentences.append(f"**{label}** makes no claim about a role, so it is not counted as wrong.")
    elif total := sum(called.values()):
        sentences.append(f"Of {total} planted models that it called **{label}**, {right} were.")
    else:
        sentences.append(f"No planted model was called {label}. The counts give no error rate of this verdict.")
    coverage = counted["coverage"]["all"]
    sentences.append(
        f"Nominal 95 % intervals contained the true value in {coverage['covered']} of {coverage['intervals']} cases. "
        "Planted models are small and built by hand inside GPT-2 and GPT-NeoX. The counts are error rates on these "
        "families, not the probability that this verdict is wrong."
    )
    if data["margins"]["version"] != counted["margins"]["version"]:
        then, today = counted["margins"]["version"], data["margins"]["version"]
        sentences.append(
            f"**Caution: the errors were counted with other arms and margins ({then}) than those of the verdict "
            f"({today}); they may differ now.**"
        )
    return sentences


def verdict_row(name: str, data: dict) -> list[str]:
    """Return a run's row in a table of verdicts: label, then each role."""
    cells = []
    for role in ROLES:
        entry = data["roles"][role]
        cells.append(entry["status"] + (f" {_interval(entry['rho'], entry['ci'])}" if entry["rho"] is not None else ""))
    return [f"`{name}`", f"**{data['verdict']}**", *cells]


def accuracy_rows(name: str, data: dict, lengths: Sequence[int]) -> list[list[str]]:
    """Return step accuracy, exact match and final bit at the given lengths."""
    rows = []
    for mode in dict.fromkeys(r["mode"] for r in data["accuracy"]):
        for metric, title in (("step", "step accuracy"), ("exact", "exact match"), ("final", "final bit")):
            values = {r["length"]: r["value"] for r in data["accuracy"] if (r["mode"], r["metric"]) == (mode, metric)}
            rows.append([f"`{name}`", mode, title, *(f"{values[n]:.3f}" if n in values else "" for n in lengths)])
    return rows


def evidence_rows(data: dict) -> list[list[str]]:
    """Return one row per arm: intervention, value, matched control and sample size."""
    return [
        [
            _length(e["length"]),
            ARMS[e["arm"]].title if e["arm"] in ARMS else e["arm"],
            e["name"],
            e["quantity"],
            _estimate(e["value"]),
            _estimate(e["control"]),
            str(e["n"]),
        ]
        for e in data["evidence"]
    ]


def erased(data: dict) -> str:
    """Return a sentence on the accuracy lost by erasing prefix parity (M8, erasing)."""
    rows = find_rows(data["evidence"], ERASE_STATE)
    values = "; ".join(
        f"at length {_length(e['length'])}, {_estimate(e['value'])} (control {_estimate(e['control'])})" for e in rows
    )
    return f"Accuracy lost by erasing prefix parity at input labels (M8): {values}." if values else ""


def offsets(data: dict) -> str:
    """Return a sentence on the bit that each step reads; "" if it was not measured."""
    shares = {row["length"]: 0.0 for row in data.get("offsets", ())}
    shares |= {row["length"]: row["share"] for row in data.get("offsets", ()) if row["offset"] == 0}
    if not shares:
        return ""
    values = ", ".join(f"{share:.3f} at length {n}" for n, share in shares.items())
    return (
        f"Share of steps that read their own bit, by editing each bit in turn: {values} "
        f"({data['offset_prompts']} prompts per length)."
    )


def _share(rate: dict) -> str:
    interval = rate["interval"]
    return f"{100 * max(interval['low'], 0):.1f} % to {100 * interval['high']:.1f} %"


def _interval(value: float, bounds: Sequence[float | None]) -> str:
    low, high = ("unbounded" if b is None else f"{b:.3f}" for b in bounds)
    return f"{value:.3f} [{low}, {high}]"


def _estimate(estimate: dict | None) -> str:
    return "" if estimate is None else _interval(estimate["value"], [estimate["low"], estimate["high"]])


def _length(length: int | Sequence[int]) -> str:
    return str(length) if isinstance(length, int) else " + ".join(map(str, length))
