"""`mnemoscope circuit` on text: finds a circuit by `find_circuit`, writes it and prints it."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.circuit_printing import print_edges, say_files
from experiments.support.console import say, warn
from experiments.support.text_prompts import one_or_each

if TYPE_CHECKING:
    from experiments.commands.circuit import CircuitCommand
    from interp.circuits import CircuitSearch
    from interp.models import Run

FILES = ("circuit.json", "circuit.graphml", "circuit.svg", "circuit.html")
# Files that only a task's circuit has.
FILES_OF_TASKS = ("circuit-curve.svg", "circuit-heads.parquet")
# Options that only tasks have, with their defaults.
OF_TASKS = {"length": 20, "lengths": (), "reorder": "auto", "repeats": 1, "prompts": 32, "format": None}
NOT_RECORDED = (*OF_TASKS, "places", "out", "json", "memory", "device", "dtype")


def run_on_text(options: CircuitCommand) -> int:
    """Find a circuit of --answer over --other on the texts, write it and print it; status 0."""
    from experiments import load
    from experiments.support.finished import warn_replaced, why_other_result
    from experiments.support.results import result_folder, work_folder

    run = load(options.name, device=options.device, dtype=options.dtype)
    options.warn_of_spaces(run)
    folder = result_folder(run, options.out, FILES)
    recorded = recorded_options(options)
    with work_folder(folder, run, "circuit", [recorded, options.seed]) as work:
        found = search_text(run, options, work)
        warn_replaced(folder / FILES[0], partial(why_other_result, run, options.seed, recorded))
        written = _write(run, options, found, folder)
    if options.json:
        print(json.dumps(written))
    else:
        say(f"{run.name}: {found.summary()}")
        print_edges(found.circuit)
        say_files(folder, FILES)
    return 0


def recorded_options(options: CircuitCommand) -> dict:
    """Return the options on which the numbers of a text depend."""
    return {k: v for k, v in asdict(options).items() if k not in NOT_RECORDED}


def check_text_options(options: CircuitCommand) -> None:
    """Raise `ValueError` where options of tasks are given with text, or where a part of the text is missing."""
    if given := [name for name, default in OF_TASKS.items() if getattr(options, name) != default]:
        raise ValueError(f"--{given[0]} is for tasks; leave it out with --clean, --corrupted, --answer and --other")
    for name, example in (("clean", "TEXT"), ("corrupted", "TEXT"), ("answer", '" Mary"'), ("other", '" John"')):
        if not getattr(options, name):
            raise ValueError(
                f"--{name} is missing, such as --{name} {example}: a circuit on text needs --clean, --corrupted, "
                "--answer and --other"
            )
    options.check_pairs()


def search_text(run: Run, options: CircuitCommand, work: Path) -> CircuitSearch:
    """Return the circuit that `find_circuit` finds, its unfinished work in `work`. Warns of pairs without one."""
    from experiments.circuit_search import progress_of
    from interp.circuits import find_circuit
    from interp.patching import logit_diff

    pair = options.text_pair(run)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the circuit will be invalid")  # said below, in one line
        found = find_circuit(
            run,
            pair.clean,
            pair.corrupted,
            logit_diff(answer=one_or_each(options.answer), other=one_or_each(options.other)),
            method=options.method,
            points=options.points,
            select=options.select,
            share=options.share,
            threshold=options.prune,
            seed=options.seed,
            progress=progress_of,
            keep=work,
        )
    if not found.validity.valid:
        warn(f"warning: the circuit is invalid: {found.validity.reason}")
    if not len(found.circuit):
        raise ValueError(f"no edge has an effect of --prune {options.prune}: does the model prefer --answer?")
    return found


def _write(run: Run, options: CircuitCommand, found: CircuitSearch, folder: Path) -> dict:
    """Write the files; return the content of circuit.json. Files that only a task's circuit has are removed."""
    import networkx

    from experiments.support.results import write_result
    from interp.views.circuit import circuit_page, draw_circuit

    low, high = found.interval or (None, None)
    data = {
        "options": recorded_options(options),
        "valid": found.validity.valid,
        "reason": found.validity.reason,
        "competence": found.validity.to_json(),
        "possible_edges": len(found.circuit.graph),
        "circuit": found.circuit.to_json(),
        "held_out": found.held_out,
        "faithfulness": {"values": found.share, "low": low, "high": high},
        "by_magnitude": None if found.share is None else float(found.faithfulness.share[1]),
        "random": None if found.random is None else {"p": found.random.p, "n": len(found.random.shares)},
        "stability": found.stability,
    }
    graph = found.to_networkx()
    graph.graph["title"] = f"{run.name}: {graph.graph['title']}"
    pictures = {
        "circuit.graphml": "\n".join(networkx.generate_graphml(graph)) + "\n",
        "circuit.svg": draw_circuit(graph),
        "circuit.html": circuit_page(graph),
    }
    files = [(folder / name, content) for name, content in pictures.items()]
    for path in (folder / name for name in FILES_OF_TASKS):
        if path.is_file():
            warn(f"removing {path}: it is of the circuit that is replaced")
            path.unlink()
    return write_result(folder / "circuit.json", run, options.seed, data, others=files)
