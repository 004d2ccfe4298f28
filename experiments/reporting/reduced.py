"""Reports on less than usual, by --quick, in deep models or by a stored result: notes, and scope of error rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.support.verdict_defaults import PROMPTS as PROMPTS_OF_VERDICT
from experiments.support.verdict_defaults import default_lengths, is_deep, n_heads

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run

# Number of prompts per section: default, with --quick, and in deep models, where a section takes minutes.
PROMPTS = {"map": (32, 8, 4), "patch": (16, 8, 8), "probes": (300, 128, 128), "heads": (32, 16, 8)}
# Layers of the map of the residual stream; of a deeper model every second one, and so on.
MOST_LAYERS = 16
# What the prompts of a section are for, and what follows from fewer.
MEANS = {
    "map": ("in the mean of the map", "The mean varies more from seed to seed."),
    "patch": ("at each patched place", "Effects vary more from seed to seed."),
    "probes": ("to train and to test the probes", "Probes may read less, and their intervals are wider."),
    "heads": ("in the table of all heads", "The mean weights vary more from seed to seed."),
}


def shown_layers(n_layers: int) -> range:
    """Return at most `MOST_LAYERS` layers at equal distances: the first one and every second, third ... after it."""
    return range(0, n_layers, -(-n_layers // MOST_LAYERS))


def left_out(run: Run, options: ReportCommand) -> str:
    """Return the beginning of a note, "Left out by --quick" or the like; "" where nothing is left out."""
    if is_deep(run):
        return f"Left out to save hours, as the model has {n_heads(run)} heads"
    return "Left out by --quick" if options.quick else ""


def prompts_of(what: str, options: ReportCommand, run: Run) -> int:
    """Return the number of prompts of a section."""
    usual, quick, deep = PROMPTS[what]
    return deep if is_deep(run) else quick if options.quick else usual


def reduced_notes(what: str, options: ReportCommand, run: Run) -> tuple[str, ...]:
    """Return the note on the prompts of a section that are left out; none where all are used."""
    used, follows = MEANS[what]
    usual, few = PROMPTS[what][0], prompts_of(what, options, run)
    if few == usual:
        return ()
    return (f"{left_out(run, options)}: {usual - few} of the {usual} prompts {used}. {few} are used. {follows}",)


def fewer_than_usual(run: Run, data: dict) -> dict[str, tuple[int, int]]:
    """Return of what a verdict has fewer than usual, prompts or lengths: its number, and the usual one."""
    numbers = {
        "prompts": (data["prompts"], PROMPTS_OF_VERDICT),
        "lengths": (len(data["by_length"]), len(default_lengths(run))),
    }
    return {what: (few, usual) for what, (few, usual) in numbers.items() if few < usual}


def reduced_verdict(data: dict, counted: dict) -> str:
    """Return that error rates are not of a verdict of this size, as sentences; "" for a full verdict.

    `data["fewer"]` is that of `fewer_than_usual`.
    """
    if not data.get("fewer"):
        return ""
    reduced = ", ".join(f"{few} of {usual} {what}" for what, (few, usual) in data["fewer"].items())
    return (
        f"**These rates are of the full settings ({counted['prompts']} prompts). This verdict is of fewer: {reduced}. "
        "Its own error rate is not measured.**"
    )
