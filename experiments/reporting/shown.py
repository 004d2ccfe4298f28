"""Sentences on what the pictures of a section show for the run that the report is on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.commands.circuit import invalid
from experiments.reporting.rows import ROLES, size_of
from experiments.reporting.text import GOOD, reach_of, whole_solutions
from experiments.support.evidence_text import MODES
from experiments.tables.runs import FOUND
from probes.findings import MARGINS

if TYPE_CHECKING:
    from torch import Tensor

    from interp.attribution import Attribution
    from interp.circuits import HeadDescriptions

# Concepts of the probes in words.
CONCEPTS = {
    "state": "the parity of the bits so far",
    "bit": "the bit that follows",
    "previous bit": "the bit before",
    "slot": "the number of the step",
    "carry": "the carry",
}


def verdict_shows(data: dict) -> str:
    """Return the effect of each role as a sentence."""
    effects = []
    for name in ROLES:
        role = data["roles"][name]
        effect = "" if role["rho"] is None else f" with an effect of {role['rho']:z.2f}"
        effects.append(f"{name} {role['status']}{effect}")
    match data["roles"]["sink"]:
        case {"margins": {"status": str(status), "share": float(share)}}:
            effects[-1] += f" on answers, and {status} on leads with {share:.2f}"
    return (
        f"In this model: {', '.join(effects[:-1])}, {effects[-1]}. 0 is no effect. For anchor and "
        "placeholder, 1 moves the lead of the right answer as far as editing the bit that the answer depends on; for "
        "the sink, 1 loses all accuracy above chance, or on leads, moves the lead by its mean size."
    )


def accuracy_shows(data: dict) -> str:
    """Return up to which length most steps are right, and the same of whole solutions."""
    rows, parts = data["accuracy"], []
    for mode, text in MODES.items():
        steps = {r["length"]: r["value"] for r in rows if (r["metric"], r["mode"]) == ("step", mode)}
        if steps:
            parts.append(f"{reach_of(steps)} with labels {text}")
    if not parts:
        return ""
    return f"In this model, at least {GOOD:.0%} of the steps are right {' and '.join(parts)}.{whole_solutions(rows)}"


def largest_sources(attribution: Attribution) -> list[list]:
    """Return on what kind of token answers depend most: kinds with their number of answers, the commonest first."""
    prompts = attribution.prompts
    assert prompts.role is not None
    assert prompts.step is not None
    best = attribution.values.abs().mean(dim=0).argmax(dim=-1).tolist()
    kinds = Counter(
        _kind(prompts.role, prompts.step, source, int(prompts.step[dest]))
        for source, dest in zip(best, attribution.dest.tolist(), strict=True)
    )
    return [[kind, n] for kind, n in kinds.most_common()]


def _kind(role: Tensor, step: Tensor, source: int, at: int) -> str:
    """Return what a position is for the answer of a step, such as "the step's own input"."""
    from interp.tasks import ANSWER_ROLES, Role

    kind = Role(int(role[source]))
    words = "answer" if kind in ANSWER_ROLES else kind.words
    match int(step[source]) - at:
        case 0 if kind is not Role.FILLER:
            return f"the step's own {words}"
        case -1 if kind in ANSWER_ROLES:
            return "the answer before"
    return f"another {words}" if int(step[source]) >= 0 else f"the {words}"


def map_shows(data: dict) -> str:
    """Return on which token most answers depend most."""
    if not data.get("largest"):
        return ""
    total = sum(n for _, n in data["largest"])
    (first, n), *rest = data["largest"]
    others = "".join(f", {kind} for {k}" for kind, k in rest[:2])
    others += f", and other tokens for {left}" if (left := sum(k for _, k in rest[2:])) else ""
    length = f", at length {size_of(data['length'])}" if "length" in data else ""
    return f"In this model{length}, {first} has the largest gradient x input for {n} of {total} answers{others}."


def map_beyond(data: dict, accuracy: dict) -> str:
    """Return a caution where the map is at a length at which too many steps are wrong; "" elsewhere or if unknown."""
    for row in accuracy["accuracy"]:
        at = (row["metric"], row["mode"], row["length"])
        if at == ("step", "forced", data.get("length")) and row["value"] < GOOD:
            return (
                f" At that length only {row['value']:.0%} of the steps are right, so the map also shows what wrong "
                "answers depend on. `--map-length` draws it at another length."
            )
    return ""


def targets(heads: HeadDescriptions, chosen: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Return where each head attends, by its name such as "L1H4", with the mean weight where answers are predicted."""
    from interp.circuits.attention_stats import words_of

    role, named = heads.answered_at, {}
    for layer, head in chosen:
        at = heads.does(layer, head, role)
        key = next((s for s in heads.statistics if at and words_of(s, heads.after_label) == at), None)
        weight = "" if key is None else f" ({heads.value(layer, head, role, key):.2f} of its attention at the {role})"
        named[f"L{layer}H{head}"] = heads.name(layer, head) + weight
    return named


def attention_shows(data: dict) -> str:
    """Return what the heads of the section attend to, heads that do the same together."""
    same: dict[str, list[str]] = {}
    for head, name in data.get("does", {}).items():
        same.setdefault(name, []).append(head)
    texts = [
        f"**{', '.join(heads)}** {'attends' if len(heads) == 1 else 'attend'} to: {n}" for n, heads in same.items()
    ]
    return f"In this model, {'; '.join(texts)}." if texts else ""


def patch_shows(data: dict) -> str:
    """Return at which places patching changes the answer most."""
    if "difference" not in data:
        return ""
    full, whole = data["difference"], data["whole"]
    stream, heads = (
        ", ".join(f"{top['cell']} ({top['change']:+z.1f}{_part(top['change'], whole)})" for top in data[site])
        for site in ("resid_pre", "z")
    )
    mark = "" if data["valid"] else f"**INVALID: {data['reason']}. Do not read a mechanism from these effects.** "
    shares = ", and their share of the difference" if whole else "; their difference is too near 0 for shares of it"
    return (
        f"{mark}In this model, the clean and the corrupted prompt differ by {full:+z.1f} logits in the answer at step "
        f"{data['step']} (length {data['length']}). The largest effects of patching one place are, in the residual "
        f"stream (each position in its best layer), at {stream}, and among heads, at {heads}. In brackets: "
        f"logits{shares}. Each place is patched alone, so that effects need not add up. At the token where the answer "
        "is read, a patch after the last layer restores all of it in every model."
    )


def _part(change: float, whole: float | None) -> str:
    """Return a change as a share of the difference of the two runs, as text; "" where that is too small."""
    return "" if whole is None else f", {change / whole:.0%}"


def probes_show(data: dict) -> str:
    """Return which concepts a probe reads better than its baselines, at the layer where it is furthest above them."""
    best: dict[str, dict] = {}
    for row in data.get("probes", ()):
        held = best.get(row["concept"])
        if held is None or _excess(row) > _excess(held):
            best[row["concept"]] = row
    if not best:
        return ""
    above, not_above = [], []
    for concept, row in best.items():
        score, held = row["score"], _baselines(row)
        measure = "R2 " * (row.get("measure") == "R2")
        beside = ", ".join(f"{name} {interval['value']:.2f}" for name, interval in held.items())
        name = CONCEPTS.get(concept, concept)
        text = f"{name} ({measure}{score['value']:.2f} at layer {row['layer']}, {beside})"
        clear = all(score["low"] > x["high"] for x in held.values()) and _excess(row) > MARGINS.accuracy
        (above if clear else not_above).append(text)
    where = "each at the layer where it exceeds them most"
    read = f"probes read better than their baselines, {where}: {', '.join(above)}"
    parts = [read if above else "probes read nothing better than their baselines"]
    if not_above:
        learned = f"not shown to be learned (less than {MARGINS.accuracy:g} above the control or random weights)"
        parts.append(f"{learned}: {', '.join(not_above)}")
    return f"In this model, at input labels, {'; '.join(parts)}."


def _baselines(row: dict) -> dict[str, dict]:
    """Return with what a probe is compared: its matched control, and the same probe on random weights if measured."""
    return {"control": row["control"]} | ({"random weights": row["untrained"]} if row.get("untrained") else {})


def _excess(row: dict) -> float:
    """Return a probe's score above the larger of its baselines."""
    return row["score"]["value"] - max(held["value"] for held in _baselines(row).values())


def circuit_shows(data: dict) -> str:
    """Return the size and faithfulness of the circuit, beside random circuits."""
    if "circuit" not in data:
        return ""
    worth, random = data["ablations"]["corrupted"], data["random"]
    size = f"{data['circuit']['size']} of {data['possible_edges']} edges"
    little = ""
    if worth["values"] < FOUND:
        little = (
            f"**This circuit is incomplete: it keeps {worth['values']:.0%} of the margin, less than {FOUND:.0%}. Do "
            "not read the model's mechanism from it.** "
        )
    return (
        f"{little}In this model, {invalid(data)}{size} keep {worth['values']:.3f} "
        f"[{worth['low']:.3f}, {worth['high']:.3f}] of the margin on fresh prompts, and a "
        f"step accuracy of {worth['accuracy']:.3f} where the full model has "
        f"{worth['accuracy_full']:.3f}. The best of {random['n']} random circuits of that size keeps "
        f"{random['largest']:.3f}."
    )
