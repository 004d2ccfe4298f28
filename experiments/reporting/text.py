"""Sentences of a report: the question, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.reporting.rows import ROLES, estimate, size_of
from experiments.support.evidence_text import MODES
from experiments.support.other_tokens import stand_ins_text
from experiments.training.rehearsal import rehearsed_text
from interp.support.sizes import FAMILIES
from probes.arms.naming import with_arm_names
from probes.evidence import find_rows
from probes.keys import ERASE_STATE

if TYPE_CHECKING:
    from interp.models import Run

# Labels of evidence that leaves a role open; others may be decided.
OPEN = ("undecided", "unresolved")
GOOD = 0.95  # step accuracy from which a model counts as able to do the task
# Labels that name no role.
NO_ROLE = {
    "not-applicable": "no role is judged: there are no labels, or the model cannot do the task",
    "undecided": "the evidence does not decide",
    "unresolved": "labels do something that none of the three roles explains",
    "unused": "labels have none of the three roles",
}


def question(run: Run) -> list[str]:
    """Return the paragraphs that describe the run and the question."""
    config = run.raw.config
    size = sum(p.numel() for p in run.raw.parameters()) / 1e6
    recipe = run.record.get("recipe", {})
    encoding = f", position encoding {run.family}" if run.family in FAMILIES else ""
    n_layers, width = config.num_hidden_layers, config.hidden_size
    kind = f"architecture {config.model_type}{encoding}, {n_layers} layers, {width} wide, {size:.2f} million parameters"
    unit = "digits" if run.format.task == "addition" else "bits"
    longest = recipe.get("longest")
    trained = f", {_begun(recipe)} on {run.format.task} of at most {longest} {unit}" if longest else ""
    trained += f" with seed {recipe['seed']}" if longest and "seed" in recipe else ""
    length = (3, 3) if run.format.task == "addition" else 4
    task_question = (
        "**What do the labels do inside this model?** Are they an anchor, a placeholder, a sink, a mixture of these, "
        "or unused?"
        if run.format.labels
        else "This format has **no labels**, so no role can be tested. The report shows how far the model gets without "
        "them and what its answers depend on."
    )
    sentences = [
        f"`{run.name}` is a transformer ({kind}){trained}. {run.format.meaning} A prompt of its task: "
        f"`{run.sample(1, length, 0).text(0)}`.",
        task_question,
    ]
    if tokens := stand_ins_text(run):
        sentences.insert(1, f"{tokens[0].upper()}{tokens[1:]}.")
    if share := recipe.get("rehearsal"):
        sentences.append(
            f"A part of the training was another task (rehearsal): {share:.0%} of its tokens were "
            f"{rehearsed_text(recipe)}."
        )
        if not recipe.get("condition"):
            sentences[-1] += f" Lengths above {longest} are therefore new to parity, not to lookup."
    return sentences


def _begun(recipe: dict) -> str:
    """Return whether a model was trained from random weights, or fine-tuned from which.

    >>> _begun({"model": {"source": "smollm2-135m", "lora": 4}})
    'fine-tuned from `smollm2-135m` with adapters of rank 4'
    """
    match recipe.get("model"):
        case {"source": str(source), "scratch": True}:
            return f"trained, from random weights in the architecture of `{source}`,"
        case {"source": str(source)}:
            rank = recipe["model"].get("lora")
            return f"fine-tuned from `{source}`" + (f" with adapters of rank {rank}" if rank else "")
    return "trained"


def answer(data: dict) -> str:
    """Return the verdict as one sentence, and the lengths at which nothing could be judged."""
    judged, left = _judged(data)
    sentence = f"Verdict at {judged}: **{data['verdict']}** ({meaning(data['verdict'])})."
    return sentence + (f" At {left} the model is not good enough at the task, and nothing is judged." if left else "")


def meaning(label: str) -> str:
    """Return what a verdict means, in a few words."""
    return NO_ROLE.get(label) or "; ".join(ROLES[r] for r in ROLES if r in label) or "no role was found"


def _judged(data: dict) -> tuple[str, str]:
    """Return the lengths that were judged, and those at which the model is not competent, as words."""
    judged = [at["length"] for at in data["by_length"] if at["verdict"] != "not-applicable"]
    every = [at["length"] for at in data["by_length"]]
    return _lengths(judged or every), _lengths([n for n in every if n not in judged]) if judged else ""


def _lengths(lengths: Sequence) -> str:
    """Return lengths as words: "length 20", or "lengths 20 and 40"."""
    return f"length{'s' * (len(lengths) > 1)} {' and '.join(map(size_of, lengths))}" if lengths else ""


def in_short(name: str, data: dict, accuracy: dict) -> str:
    """Return the verdict and the lengths at which the model works, in three sentences."""
    steps = [r for r in accuracy["accuracy"] if r["metric"] == "step" and r["mode"] == "forced"]
    longest = accuracy.get("trained_to")
    reach = reach_of({row["length"]: row["value"] for row in steps})
    trained = f" (it was trained up to {longest})" if longest else ""
    label = data["verdict"]
    roles = "" if label not in OPEN else "; " + ", ".join(f"{r} {data['roles'][r]['status']}" for r in ROLES)
    judged = f"the verdict on the labels is **{label}** ({meaning(label)}{roles})"
    if label == "not-applicable":
        judged = "no role is judged"
    return (
        f"In `{name}`, at {_judged(data)[0]}, {judged}. With labels and earlier answers given (teacher-forced), at "
        f"least {GOOD:.0%} of its steps are right {reach}{trained}.{whole_solutions(accuracy['accuracy'])}"
    )


def whole_solutions(rows: list[dict]) -> str:
    """Return up to which length whole solutions are right, and the share at the longest one, as a sentence.

    >>> row = {"metric": "exact", "mode": "forced", "length": 20, "value": 1.0}
    >>> whole_solutions([row, {**row, "length": 40, "value": 0.5}])
    ' Of whole solutions, at least 95% are right up to length 20 (0.50 at length 40).'
    """
    exact = [row for row in rows if row["metric"] == "exact"]
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in exact)]
    parts = []
    for mode in modes:
        values = {row["length"]: row["value"] for row in exact if row["mode"] == mode}
        longest = max(values)
        given = f" with labels {MODES[mode]}" if len(modes) > 1 else ""
        parts.append(f"{reach_of(values)}{given} ({values[longest]:.2f} at length {size_of(longest)})")
    return f" Of whole solutions, at least {GOOD:.0%} are right {' and '.join(parts)}." if parts else ""


def reach_of(values: Mapping) -> str:
    """Return up to which length accuracies are good, at this and every shorter one."""
    right = [n for n in values if all(values[m] >= GOOD for m in values if m <= n)]
    return f"up to length {size_of(max(right))}" if right else "at none of the measured lengths"


def role_lines(data: dict) -> list[str]:
    """Return one line per role: its status and the reason."""
    return [f"**{name}: {_status(role)}.** {_reason(role)}." for name, role in data["roles"].items()]


def _reason(role: dict) -> str:
    """Return the reason of a status with the arms' names; of the sink, that on margins too."""
    reason = role["reason"] or "no reason is given"
    if "margins" in role:
        reason = f"On answers: {reason}. On margins: {role['margins']['reason']}"
    return with_arm_names(reason).replace("+-", "±")


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
    steps = "Steps are counted from 1; the first ones and the last one have no partners for the swaps." * (
        "(steps " in data["may_claim"]
    )
    unit = "prompts of one model" if data["replication"] == "prompts" else f"{data['n_models']} models"
    return [
        f"**May be claimed:** {with_arm_names(data['may_claim']) or 'nothing about roles'}."
        + f" {steps}" * bool(steps),
        f"**May not be claimed:** {with_arm_names(data['may_not_claim'])}. Intervals are over {unit}"
        + (", so nothing here is shown for models of other seeds." if data["replication"] == "prompts" else "."),
    ]


def erased(data: dict) -> str:
    """Return a sentence on the accuracy lost by erasing prefix parity (M8 decoding)."""
    rows = find_rows(data["evidence"], ERASE_STATE)
    values = "; ".join(
        f"at length {size_of(e['length'])}, {estimate(e['value'])} (control {estimate(e['control'])})" for e in rows
    )
    return f"Accuracy lost by erasing the parity so far from input labels (M8 decoding): {values}." if values else ""


def offsets(data: dict) -> str:
    """Return a sentence on the bit that each step reads; "" if it was not measured."""
    shares = {row["length"]: 0.0 for row in data.get("offsets", ())}
    shares |= {row["length"]: row["share"] for row in data.get("offsets", ()) if row["offset"] == 0}
    if not shares:
        return ""
    values = ", ".join(f"{share:.3f} at length {n}" for n, share in shares.items())
    return (
        f"Share of steps that read their own bit, by editing each bit in turn: {values} "
        f"({data['offset_prompts']} prompts per length). A step reads the bit whose edit moves its answer most, of "
        "those that flip it. `own bit` of M11 offsets in the evidence counts every step that its own bit flips, "
        "whatever other bits do; its control counts steps that another bit flips."
    )
