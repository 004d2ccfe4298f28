"""Calibration of verdicts on lists: judge planted models that find items in a known way (probes/README.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from probes.binding import binding_verdict, measure_binding, trials_of
from probes.binding.checking import ADDRESSES
from probes.binding.truths import wrong_statuses
from probes.calibration import DIRTY
from probes.error_rates import Rate, counted_by_group, is_clean
from probes.planted import ARCHITECTURES_OF, Dirt
from probes.planted.list_mechanisms import LIST_MECHANISMS
from probes.planted.list_planting import ListPlan, plant_list
from probes.statuses import Status

# Lists that the plans take in turn, with their numbers of items; a learned index needs labels in one order.
LISTS = (("list-letters", 6), ("list-random-numerals", 6), ("list-letters", 12), ("list-names", 8))
SHARES = (0.3, 0.5, 0.7)


def list_plans(names: Collection[str] = tuple(LIST_MECHANISMS)) -> list[ListPlan]:
    """Return plans of mechanisms that find items: each in three architectures, clean and with dirt.

    Lists and, where there are two routes, the first one's share take turns.
    """
    architectures = ARCHITECTURES_OF["A1"]
    plans = []
    for k, name in enumerate(LIST_MECHANISMS):
        truth = LIST_MECHANISMS[name]
        for i, dirt in enumerate((Dirt(), DIRTY)):
            for j, architecture in enumerate(architectures):
                turn = k + j + 2 * i
                task, items = LISTS[2 * (turn % 2) if truth.ordered else turn % len(LISTS)]
                share = SHARES[turn % len(SHARES)] if truth.routes == 2 else 1.0
                plans.append(ListPlan(name, architecture, task, items, share, dirt, seed=turn))
    return [plan for plan in plans if plan.mechanism in names]


def judge_list(plan: ListPlan, prompts: int = 128) -> dict:
    """Plant a model and judge it on prompts that planting did not use.

    Return a plain dictionary: plan, truth, accuracy, label, and status of each address and sink.
    """
    planted, truth = plant_list(plan), LIST_MECHANISMS[plan.mechanism]
    trials = trials_of(planted.tokenizer, plan.task, plan.items, prompts, plan.seed)
    verdict = binding_verdict("model", measure_binding(planted.model, trials, plan.task, plan.seed, prompts=prompts))
    return {
        "mechanism": plan.mechanism,
        "prompts": prompts,
        "plan": plan.to_json(),
        "applied": dict(planted.applied),
        "truth": {"addresses": list(truth.addresses), "sinks": list(truth.sinks), "unjudged": list(truth.unjudged)},
        "accuracy": verdict.measured.accuracy.value,
        "label": verdict.label,
        "addresses": {name: status.value for name, (status, _) in verdict.addresses.items()},
        "sinks": {name: status.value for name, (status, _) in verdict.sinks.items()},
        "shares": {name: share.value.value for name, share in verdict.measured.shares.items()},
    }


def tally_lists(cases: Collection[Mapping]) -> dict:
    """Return a row per case and the counts of outcomes. Raises `ValueError` without a case.

    Outcomes: "right" where the label names what the model uses and nothing else, "wrong" where an address or a sink is
    PRESENT or ABSENT against the truth, and "incomplete" where none is and the label leaves an address open.
    """
    if not cases:
        raise ValueError("no case has been judged")
    rows = [
        {
            "mechanism": case["mechanism"],
            **{name: case["plan"][name] for name in ("architecture", "task", "items", "share")},
            "dirty": not is_clean(case),
            "expected": _expected(case),
            "label": case["label"],
            "outcome": _outcome(case),
            "wrong": wrong_statuses(case),
        }
        for case in cases
    ]
    named = [case for case in cases if set(case["label"].split(" + ")) <= set(ADDRESSES)]
    rates = {
        "wrong status": Rate(sum(bool(row["wrong"]) for row in rows), len(rows), None),
        "wrong label": Rate(sum(_is_wrong_label(case) for case in named), len(named), None),
        "sinks found": Rate(*_sinks_found(cases), None),
    }
    return {
        "cases": rows,
        "counts": counted_by_group(rows),
        "mechanisms": len({case["mechanism"] for case in cases}),
        "rates": {name: rate.to_json() for name, rate in rates.items()},
    }


def _outcome(case: Mapping) -> str:
    if wrong_statuses(case):
        return "wrong"
    return "right" if case["label"] == _expected(case) else "incomplete"


def _expected(case: Mapping) -> str:
    return " + ".join(name for name in ADDRESSES if name in case["truth"]["addresses"]) or "unresolved"


def _is_wrong_label(case: Mapping) -> bool:
    return not set(case["label"].split(" + ")) <= set(case["truth"]["addresses"])


def _sinks_found(cases: Collection[Mapping]) -> tuple[int, int]:
    """Return how many planted sinks are PRESENT, and how many there are."""
    statuses = [case["sinks"][name] for case in cases for name in case["truth"]["sinks"]]
    return statuses.count(Status.PRESENT), len(statuses)
