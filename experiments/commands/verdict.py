"""`mnemoscope verdict`: what do the labels do inside a run, or inside all seeds of a configuration?"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from interp.models import Run
    from probes.findings import Verdict as Found

# Past what training saw, and well past it: bits from 20, digits from 10 (science 1).
LENGTHS = {"parity": (20, 40), "addition": (10, 14)}


@dataclass(frozen=True)
class VerdictCommand:
    """Anchor, placeholder, sink, a mixture, unused, or honestly undecided: what do the labels do?

    One run is judged over prompts; several runs of one configuration, which differ in their seed, over models.
    Every arm has a matched control; a role is PRESENT, ABSENT or INDETERMINATE, and NOT APPLICABLE where the
    model cannot do the task. Writes verdict.json and verdict.svg.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Runs by name, such as parity-aligned-alibi, or folders that save_pretrained wrote."""
    model: Path | None = None
    """A folder that save_pretrained wrote, without a run.json; say --task and --format."""
    task: str | None = None
    """Task of a model that has no run.json: parity or addition."""
    format: str | None = None
    """Format to pose, such as aligned (with --task) or parity-aligned."""
    forced: bool = False
    """Measure competence only with labels put there from outside; else also with labels that the model writes."""
    lengths: tuple[int, ...] = ()
    """Bits, default 20 and 40, or digits of both operands, default 10 and 14; or what fits into the positions."""
    prompts: int = 128
    """Prompts at each length."""
    seed: int = 0
    """Seed of the prompts and of the choice of steps."""
    arms: tuple[str, ...] = ()
    """Arms of the battery, M1 to M12 and shares; default all. A role whose arm is left out stays INDETERMINATE."""
    memory: int = 1024
    """MiB that one pass may take beyond the model; prompts run in chunks that fit."""
    out: Path | None = None
    """Folder for the result, and for the arms that are done until all are; default mnemoscope-out/<run>."""
    json: str | None = None
    """Write the verdict as JSON to this file, "-" for standard output instead of tables."""

    def run(self) -> int:
        """Measures, decides, writes and prints; status 0 whatever the verdict is."""
        from experiments.support.progress import progress_bar
        from experiments.support.results import as_svg, check_seed, recalling, result_folder, work_folder, write_result
        from interp.support.writing import write_whole
        from probes import battery, verdict
        from probes.batteries import ARMS

        check_seed(self.seed)
        runs = self._load()
        lengths = self.lengths or default_lengths(runs[0])
        target = None if self.json in (None, "-") else Path(str(self.json))
        if target is not None:
            check_target(target)
        folder = result_folder(runs[0], self.out)
        batteries, options = [], [self.prompts, self.seed, str(runs[0].format)]
        with progress_bar(unit="step") as bar, ExitStack() as kept:  # until it is written

            def step(what: str) -> None:
                bar.set_description(what)
                bar.update()

            for run in runs:
                recall = recalling(kept.enter_context(work_folder(folder, run, "verdict", options)))
                arms = self.arms or ARMS
                found = battery(run, lengths, self.seed, self.prompts, self.forced, arms, step=step, recall=recall)
                batteries.append(found)
            found = verdict(batteries)
            data = {"prompts": self.prompts, **found.to_json()}
            picture = (folder / "verdict.svg", as_svg(_picture(found)))
            written = write_result(folder / "verdict.json", runs[0], self.seed, data, others=[picture])
            if target is not None:
                write_whole(target, json.dumps(written, indent=1) + "\n")
        if self.json == "-":
            print(json.dumps(written))
            return 0
        _report(found, runs[0])
        print(folder / "verdict.json")
        return 0

    def _load(self) -> list[Run]:
        import torch

        from experiments import load

        fmt = self.format
        if self.task is not None:
            if fmt is None:
                raise ValueError(f"--task {self.task} needs --format, such as aligned")
            fmt = fmt if fmt.startswith(f"{self.task}-") else f"{self.task}-{fmt}"
        names = [*self.names, *([str(self.model)] if self.model else [])]
        if not names:
            raise ValueError("name a run, such as parity-aligned-alibi, or a folder with --model")
        if self.model is not None and not self.model.is_dir():
            raise ValueError(f"{self.model} is no folder")
        runs = [load(name, fmt, max(self.lengths, default=None)) for name in names]
        places = [Path(r.source).resolve() for r in runs]
        if repeated := {r.name for r, place in zip(runs, places, strict=True) if places.count(place) > 1}:
            raise ValueError(f"{', '.join(sorted(repeated))} was named twice; a verdict over models counts each once")
        shapes = {name: shape_of(run) for name, run in zip(names, runs, strict=True)}
        if len(set(shapes.values())) > 1:
            listed = "; ".join(f"{name} is {shape}" for name, shape in shapes.items())
            raise ValueError(f"models that are judged together must differ in their seed alone; {listed}")
        for run in runs:
            if run.raw.device.type == "cpu" and run.raw.dtype in (torch.float16, torch.bfloat16):
                run.raw.float()  # half precision is slow on a CPU, and its rounding is not what is asked about
        return [
            replace_name(run, names[k]) if sum(run.name == r.name for r in runs) > 1 else run
            for k, run in enumerate(runs)
        ]


def shape_of(run: Run) -> str:
    """What models of one configuration share."""
    config = run.raw.config
    return f"{config.model_type} with {config.num_hidden_layers} layers x {config.hidden_size}, posed {run.format}"


def replace_name(run: Run, name: str) -> Run:
    """The run under the name it was asked for, where two folders end alike."""
    from dataclasses import replace

    return replace(run, name=name)


def default_lengths(run: Run) -> tuple[int, ...]:
    """20 and 40 bits, 10 and 14 digits, where they fit into the positions and labels, else the longest that does.

    Raises `ValueError` where not even the shortest that can be tested fits.
    """
    from interp.tasks import check_length
    from probes.trials.parity import shortest_of

    usual, shortest = LENGTHS.get(run.format.task, LENGTHS["parity"]), shortest_of(run.format.task)

    def fits(length: int) -> bool:
        try:
            run.check_length(length)
            check_length(run.format, length, run.vocabulary)
        except ValueError:
            return False
        return True

    if found := tuple(n for n in usual if fits(n)):
        return found
    for n in range(min(usual) - 1, shortest - 1, -1):
        if fits(n):
            return (n,)
    unit = "digits" if run.format.task == "addition" else "bits"
    raise ValueError(f"{run.name} takes no {run.format} with {shortest} {unit} or more, which the verdict needs")


def check_target(path: Path) -> None:
    """Raises `ValueError` before any work when a file cannot be written."""
    from experiments.support.results import writable_folder

    if path.is_dir():
        raise ValueError(f"--json {path} is a folder; name a file")
    writable_folder(path.parent)


def _picture(found: Found):
    from probes.views.calibration import draw_roles

    rows = {}
    for finding in found.lengths:
        rows[f"length {finding.length}"] = {
            name: (role.rho.value, role.rho.low, role.rho.high) for name, role in finding.roles.items() if role.rho
        }
    return draw_roles(rows, None)


def _report(found: Found, run: Run) -> None:
    from experiments.support.results import print_table

    who = found.names[0] if len(found.names) == 1 else f"{len(found.names)} models"
    table = []
    for finding in found.lengths:
        for mode in dict.fromkeys(a.mode for a in finding.accuracy):
            rows = [a for a in finding.accuracy if a.mode == mode]
            cells = [str(next(a.estimate for a in rows if a.metric == m)) for m in ("step", "exact", "final")]
            counts = "yes" if finding.mode is not None else "no"
            table.append([str(finding.length), mode, *cells, counts])
    columns = ["length", "labels", "step accuracy", "exact match", "final", "competent"]
    print_table(f"{who}: can it do the task? 95 % intervals", columns, table)
    table = []
    for finding in found.lengths:
        for name, role in finding.roles.items():
            table.append([str(finding.length), name, role.status.value, str(role.rho or "-"), str(role.control or "-")])
    columns = ["length", "role", "status", "rho", "matched control"]
    title = "roles (rho: 0 no effect, 1 the full effect; 95 % intervals, decided at simultaneous ones)"
    print_table(title, columns, table)
    table = [
        [str(e.length), e.arm, e.name, e.quantity, str(e.value), str(e.control or "-"), str(e.n)]
        for f in found.lengths
        for e in f.evidence
    ]
    if table:
        columns = ["length", "arm", "what", "in", "value", "control", "n"]
        print_table(f"evidence, over {table[0] and found.lengths[0].evidence[0].unit}", columns, table)
    for finding in found.lengths:
        print(f"length {finding.length}: {finding.label}")
        for name, role in finding.roles.items():
            print(f"  {name}: {role.status} - {role.reason}")
        for name, why in finding.left_out.items():
            print(f"  {name} {why}")
    print(f"verdict: {found.label}")
    print(f"may be claimed: {found.may_claim}")
    print(f"may not be claimed: {found.may_not_claim}")
    recipe = run.record.get("recipe", {})
    if share := recipe.get("rehearsal"):
        print(
            f"Trained with rehearsal: {share:.0%} of its tokens were in-context recall of up to "
            f"{recipe['rehearsal_longest']} pairs, which also knows the held-out labels; lengths past "
            f"{recipe.get('longest')} are new to parity, not to addressing."
        )
