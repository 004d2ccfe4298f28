"""Markdown table of the verdicts on lists and recall, from experiments/results/lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.drawing.lists import order_of
from experiments.support.list_results import ARMS, LISTS, interval_text, position_arm, read_list_verdicts
from experiments.tables.cells import markdown
from probes.binding.edits import BOTH_LISTED
from probes.binding.found import is_decided_alike

HEAD = (
    "model",
    "task",
    "items",
    "prompts",
    "accuracy",
    "own label, traded in the list",
    "own label, traded in the query",
    "order",
    "label and order, in the list",
    "position",
    "remainder",
    "found by",
    "sinks",
    "CPU s",
    "peak MiB",
)


def lists_table(folder: Path = LISTS) -> str:
    """Return one row per verdict: shares with joint 95 % intervals and the matched control, time and memory."""
    verdicts = sorted(read_list_verdicts(folder), key=order_of)
    return markdown(HEAD, map(_row, verdicts)) if verdicts else "not built yet\n"


def _row(found: Mapping[str, Any]) -> tuple[object, ...]:
    cost = found["cost"]
    about = (found["run"], found["task"], found["items"], found["prompts"], interval_text(found["accuracy"]))
    if found["refusal"] is not None:
        shares = [""] * (len(ARMS) + 2)
    else:
        arms = (*ARMS[:-1], BOTH_LISTED, position_arm(found["shares"]))
        missing = {arm: "no such address" if arm in found["left_out"] else "not measured" for arm in arms}
        shares = [_share(found["shares"][arm]) if arm in found["shares"] else missing[arm] for arm in arms]
        shares.append("" if found["remainder"] is None else interval_text(found["remainder"]))
    sinks = [name for name, sink in found["sinks"].items() if sink["status"] == "PRESENT"]
    older = " †" if found["refusal"] is None and not is_decided_alike(found) else ""  # by earlier arms
    ends = (found["verdict"] + older, ", ".join(sinks), f"{cost['cpu_seconds']:.0f}", f"{cost['peak_mib']:.0f}")
    return (*about, *shares, *ends)


def _share(share: Mapping[str, Any]) -> str:
    return f"{interval_text(share['value'])}, control {share['control']['value']:.2f}"
