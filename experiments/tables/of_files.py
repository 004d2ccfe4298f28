"""Numbers for the prose of the READMEs from single result files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import nan, prod
from pathlib import Path

from safetensors import safe_open

from experiments.forced.judging import read_forced
from experiments.support.binding_results import file_of
from experiments.support.list_results import LISTS, position_arm
from experiments.support.reading import read_result
from interp.models import read_json
from interp.models.names import SHIPPED
from probes.binding.edits import BOTH, BOTH_LISTED
from probes.binding.lattice import beyond
from probes.evidence import ORDER_BROKEN, ORDER_KEPT
from probes.keys import ADDRESSES, LARGEST_CONTENT, LARGEST_IDENTITY, OWN

FOLDER = Path(__file__).parent.parent
# The verdict on the fine-tuned model among the shipped runs.
ADAPTED_VERDICT = SHIPPED / "smollm2-parity-aligned" / "verdict.json"
# A verdict on a list in bfloat16, whose counterpart in float32 is a stored one.
BFLOAT16_LIST = FOLDER / "recipes" / "smollm2-135m-list-letters-12-bfloat16.json"
# The verdict on the fine-tuned model at 40 bits, past the trained length.
ADAPTED_PAST = FOLDER / "recipes" / "smollm2-parity-aligned-verdict-40.json"
# The verdict on it at 20 and 40 bits with all deciding arms, in bfloat16 and on 24 prompts.
ADAPTED_FEW = FOLDER / "recipes" / "smollm2-parity-aligned-verdict-24-prompts.json"
# An older verdict at 20 bits, whose layers were measured on all prompts.
ADAPTED_ROUTES = FOLDER / "recipes" / "smollm2-parity-aligned-routes.json"
# What its address leaves, by reassignment: measured later than the verdict, whose numbers it repeats.
ADAPTED_ORDER = FOLDER / "recipes" / "smollm2-parity-aligned-identity.json"
# The shipped model on its own format, and on the one in which labels follow their bits.
OWN_FORMAT = SHIPPED / "parity-aligned-alibi" / "verdict.json"
SUFFIX = FOLDER / "recipes" / "parity-aligned-alibi-suffix-verdict.json"
_BOTH = ADDRESSES[-1, 0]
# What two labels leave; the last one in results before 2026-11-29, in which they may lead to two places.
_REST, _OTHERS, _APART = (key.template for key in (_BOTH.rest, _BOTH.others, _BOTH.apart) if key is not None)
# The evidence of both verdicts that the text quotes.
_ADAPTED_EVIDENCE = (
    "either side",
    "rename labels",
    "history in V at labels",
    "swap the input labels of the step and before",
    "swap the input labels before",
    "sink",
    "largest effect on margins",
    "margins repaired by a key of equal score",
    _REST,
    "largest effect",  # of presence, which comes after that of identity
    "whatever is found",
    "remainder",
)
_PAST_EVIDENCE = (
    "either side",
    "swap the input labels of the step and before",
    "rename labels",
    "history in V at labels",
    _REST,
    "swap the output labels before",
)
_FEW_EVIDENCE = (
    "swap the input labels of the step and before",
    "history in V at labels",
    "largest effect",  # of presence
    "largest effect on margins",
    "margins repaired by a key of equal score",
    "either side",
)
# The verdict on Gemma 3 270M with adapters at 20 bits, and what the text quotes of it.
SECOND_VERDICT = FOLDER / "recipes" / "parity-aligned-gemma3-270m-lora4-seed1-verdict.json"
_SECOND_EVIDENCE = (
    "either side",
    "rename labels",
    "V at label, L9-L11",
    "K at bit, L9-L11",
    "history in V at labels",
    "swap the input labels before",
    "swap the input labels of the step and before",
    "largest effect where the label leads to the same answer",
)
# Layers of the shipped model, as an older verdict has them.
_ROUTES = (
    "V at label, L15-L19",
    "K at bit, L15-L19",
    "Q at output label, L15-L19",
    "Q at output label, L20-L24",
    "K at bit, L20-L24",
)
# Arguments of `evidence_at`, by name.
ADAPTED_NUMBERS = {
    "second": (SECOND_VERDICT, _SECOND_EVIDENCE, 20),
    "evidence": (ADAPTED_VERDICT, _ADAPTED_EVIDENCE, 20),
    "routes": (ADAPTED_ROUTES, _ROUTES, 20),
    "past": (ADAPTED_PAST, _PAST_EVIDENCE, 40),
    "few": (ADAPTED_FEW, _FEW_EVIDENCE, 40),
}


def shares_on_maps(figure: str) -> list[float]:
    """Return the mean shares in the titles of a figure of two maps, as `zoo.maps` writes them.

    Of each map the bit, at trained steps and past them, and the parity before it, likewise.
    """
    text = (FOLDER.parent / "figures" / f"{figure}.svg").read_text(encoding="utf-8")
    titles = re.findall("<!-- mean share: (.*) -->", text)
    return [float(share) for title in titles for share in re.findall(r"\d\.\d\d", title)]


def checked(case: str, quantity: str) -> list[float]:
    """Return what the raw models of a forced case do, by seed (`experiments.forced.checks`)."""
    return [row["checked"][quantity] for row in read_forced().values() if row["case"] == case]


def rested(case: str) -> list[float]:
    """Return the attention of the noisy head to labels, by seed, and the answers without attention to labels."""
    return [*checked(case, "attention on labels, last head"), *checked(case, "answers without labels")]


def millions_of_parameters(path: Path) -> float:
    """Return the number of parameters in a file of weights, in millions, from its header."""
    with safe_open(path, framework="pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys()) / 1e6  # noqa: SIM118


def evaluated(path: Path, metric: str, mode: str, lengths: Sequence[int]) -> list[float]:
    """Return the accuracies of one model by length, from its `evaluation.json`."""
    values = {
        at["length"]: at["value"]
        for at in read_json(path)["accuracy"]  # of whichever versions it was trained and evaluated with
        if (at["metric"], at["mode"]) == (metric, mode)
    }
    return [values[length] for length in lengths]


def perplexities() -> list[float]:
    """Return the perplexities of the steering example in interp/README.md, at its scales 0, 1 and 4."""
    stored = json.loads((FOLDER / "results" / "steering.json").read_text(encoding="utf-8"))
    return [row["perplexity"] for row in stored["scales"]]


def presence(run: str, name: str) -> list[float]:
    """Return an effect of the presence arm in the stored verdict of a shipped run, by length."""
    evidence = json.loads((SHIPPED / run / "verdict.json").read_text(encoding="utf-8"))["evidence"]
    return [e["value"]["value"] for e in evidence if (e["arm"], e["name"]) == ("presence", name)]


def evidence_at(verdict: Path, names: Sequence[str], length: int) -> list[float]:
    """Return value, lower and upper end of pieces of evidence, by name, in a stored verdict."""
    evidence = read_result(verdict)["evidence"]
    by_name = {e["name"]: e["value"] for e in evidence if e["length"] == length}
    return [by_name[name][key] for name in names for key in ("value", "low", "high")]


def largest_effects(verdict: Path, length: int) -> list[float]:
    """Return largest effects in a stored verdict: of identity, with its control, and of content, with its control.

    Then what the step's own label leaves, and, where other addresses were measured, what trading the label before does.
    """
    found = {(e["arm"], e["name"]): e for e in read_result(verdict)["evidence"] if e["length"] == length}
    largest = [found[key.arm, key.template] for key in (LARGEST_IDENTITY, LARGEST_CONTENT)]
    others = [found.get((key.arm, key.template)) for key in (OWN.rest, ADDRESSES[-1,].inputs)]
    of_largest = [e[which]["value"] for e in largest for which in ("value", "control")]
    return of_largest + [e["value"]["value"] for e in others if e is not None]


def left_by_order(verdict: Path = ADAPTED_ORDER) -> list[float]:
    """Return what own label and label before leave, each with lower and upper end, and what a renaming moves.

    The most that labels move which are shifted in their order, then the least and the most that others move.
    """
    (rest,) = [e for e in read_result(verdict)["evidence"] if e["name"] == _APART]
    kept, broken = ([*rest["details"][order].values()] for order in (ORDER_KEPT, ORDER_BROKEN))
    shown = [end(some, key=lambda x: x["value"]) for end, some in ((max, kept), (min, broken), (max, broken))]
    return [x[key] for x in (*shown, rest["control"]) for key in ("value", "low", "high")]


def other_labels(verdict: Path = ADAPTED_VERDICT) -> list[float]:
    """Return what all labels but own label and label before move, and what a renaming moves, with their intervals.

    Then the most that a permutation of these other labels moves.
    """
    (others,) = [e for e in read_result(verdict)["evidence"] if e["name"] == _OTHERS]
    permuted = [value for name, value in others["details"]["family"].items() if name.startswith("permutation")]
    ends = [others[which][end] for which in ("value", "control") for end in ("value", "low", "high")]
    return [*ends, max(permuted)]


def minutes_of_lists() -> list[float]:
    """Return the minutes that verdicts on lists took: six letters, twelve of each, twelve letters in bfloat16."""
    asked = [("letters", 6), *((kind, 12) for kind in ("letters", "numerals", "bullets"))]
    full = [read_result(LISTS / "smollm2-135m" / file_of(f"list-{kind}", items)) for kind, items in asked]
    return [data["cost"]["seconds"] / 60 for data in (*full, read_result(BFLOAT16_LIST))]


def minutes_of_verdict(verdict: Path = ADAPTED_FEW) -> list[float]:
    """Return the minutes in which a verdict was measured."""
    return [read_result(verdict)["cost"]["seconds"] / 60]


def apart_in_both_types() -> list[float]:
    """Return the largest difference of a share between these two verdicts."""
    full, half = (data["shares"] for data in _in_both_types())
    return [max(abs(full[arm]["value"]["value"] - share["value"]["value"]) for arm, share in half.items())]


def _in_both_types() -> list[dict]:
    return [read_result(path) for path in (LISTS / "smollm2-135m" / file_of("list-letters", 12), BFLOAT16_LIST)]


def on_list(run: str, task: str, items: int) -> list[float]:
    """Return accuracy, shares and remainder of a stored verdict on a list; the accuracy only where it was refused.

    The shares are own label traded in the list and in the query, order and its control, and position. Then: what
    position exceeds its control by, with its interval, and the same of the value of the item before; what the other
    item's value gains in these two; at last the share of label and order traded at once in the list, and what a trade
    of two items each adds to label and order in the query, with its interval.
    """
    found = read_result(LISTS / run / file_of(task, items))
    if found["refusal"] is not None:
        return [found["accuracy"]["value"]]
    shares = {arm: share["value"]["value"] for arm, share in found["shares"].items()}
    position = position_arm(shares)
    control = found["shares"]["order"]["control"]["value"] if "order" in shares else nan
    values = [shares.get(arm, nan) for arm in ("label at list", "label at query", "order")]
    rest = nan if found["remainder"] is None else found["remainder"]["value"]
    excesses = [found["shares"][arm]["excess"] if arm in shares else {} for arm in (position, "order, value")]
    excesses += [found["shares"].get(arm, {}).get("gained", {}) for arm in (position, "order, value")]
    intervals = [*excesses, found.get("added", {}).get(beyond("joint", BOTH), {})]
    ends = [[interval.get(end, nan) for end in ("value", "low", "high")] for interval in intervals]
    both = shares.get(BOTH_LISTED, nan)
    beside = [end for interval in ends[:-1] for end in interval]
    return [found["accuracy"]["value"], *values, control, shares.get(position, nan), rest, *beside, both, *ends[-1]]


def learned_in_300_steps() -> list[float]:
    """Return the step accuracy at its own lengths of the model that was fine-tuned on addition for 300 steps."""
    path = FOLDER / "recipes" / "addition-aligned-smollm2-135m-300-steps-run.json"
    return [json.loads(path.read_text(encoding="utf-8"))["outcome"]["step_accuracy"]]


def followed_on_list(run: str, task: str, items: int) -> list[float]:
    """Return in which share of prompts the other value leads: labels traded, positions traded, all addresses moved."""
    shares = read_result(LISTS / run / file_of(task, items))["shares"]
    return [shares[arm]["follows"] for arm in ("label at list", position_arm(shares), "joint")]


def calibrated_before() -> list[float]:
    """Return the counts with the margins `2026-11d`: wrong labels, models, and those without a label."""
    path = FOLDER / "results" / "calibration-2026-11d.json"
    rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
    wrong = rates["wrong confident label"]
    return [wrong["hits"], wrong["n"], rates["undecided, all"]["hits"]]


def recalled_by_label() -> list[float]:
    """Return the smallest share of own label, traded in the list, over the stored verdicts on recall."""
    found = [read_result(path) for path in sorted(LISTS.glob("*/verdict-recall-*.json"))]
    return [min(x["shares"]["label at list"]["value"]["value"] for x in found if x["refusal"] is None)]
