"""The table of verbs of `mnemoscope`, in the order of its help."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple


class Verb(NamedTuple):
    """Where a verb's command class is, and its line in `mnemoscope --help`."""

    class_name: str
    summary: str


VERBS = {
    "verdict": Verb("VerdictCommand", "classify what the labels do in a run, or in all seeds of it"),
    "report": Verb("ReportCommand", "write everything known about a run into one HTML file"),
    "evaluate": Verb("EvaluateCommand", "measure accuracy by length, and which input decides each step"),
    "patch": Verb("PatchCommand", "patch activations at every layer and position, on tasks or text"),
    "attention": Verb("AttentionCommand", "show a layer's attention patterns on a prompt in one HTML file"),
    "circuit": Verb("CircuitCommand", "search a circuit, test it on fresh prompts, describe its heads"),
    "train": Verb("TrainCommand", "train a model on a task, from scratch or from pretrained weights"),
    "sweep": Verb("SweepCommand", "train, evaluate and judge a grid of models"),
    "figures": Verb("FiguresCommand", "draw the figures of all trained configurations"),
    "gallery": Verb("GalleryCommand", "write one page with every view and the code that makes it"),
    "calibrate": Verb("CalibrateCommand", "count wrong verdicts on models whose mechanism is known"),
    "fetch": Verb("FetchCommand", "download a small pretrained model that needs no model hub"),
    "bench": Verb("BenchCommand", "measure speed, memory and numerical drift"),
}


def command_class(name: str) -> type:
    """Return the dataclass of a verb."""
    return getattr(import_module(f"experiments.commands.{name}"), VERBS[name].class_name)
