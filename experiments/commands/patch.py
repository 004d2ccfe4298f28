"""`mnemoscope patch`: which activation, moved from one run to another, changes the answer?"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from interp.models import Run
    from interp.patching import Metric, PatchEffect, Sweep
    from interp.tasks import Batch


@dataclass(frozen=True)
class PatchCommand:
    """Exhaustive activation patching of one site between a clean and a corrupted prompt.

    Writes patch-<site>.parquet (every cell and prompt), .json (checks, cost, provenance) and .svg (heat map).
    The same command goes on where a killed one stopped.
    """

    name: Annotated[str, tyro.conf.Positional]
    """A run by name, such as parity-aligned-alibi, or a folder that save_pretrained wrote."""
    site: str = "resid_pre"
    """resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z or pattern."""
    metric: Literal["logit_diff", "probability", "accuracy", "kl"] = "logit_diff"
    """Measured at --step, on the clean prompt's answer; kl is from the clean run."""
    length: int = 20
    """Bits, or digits for addition."""
    step: int = 10
    """Output step whose answer is read."""
    corrupt: Literal["flip_input", "swap_input_labels", "swap_output_labels", "redraw"] = "flip_input"
    """How the corrupted prompt differs: bit --step flipped (scratchpad kept), labels of --step and --partner
    traded on one side (of prompts whose bits differ there), or another random prompt."""
    partner: int = 5
    """The step whose label trades places with that of --step."""
    direction: Literal["denoise", "noise"] = "denoise"
    """Clean activations into the corrupted run, or the other way."""
    layers: tuple[int, ...] | None = None
    """Layers; default all."""
    heads: tuple[int, ...] | None = None
    """Heads, for q, k, v, z and pattern; default all."""
    positions: tuple[str, ...] = ()
    """Roles such as input_label, or role:step such as output:5, or indices; default every position."""
    joint: bool = False
    """Patch all of --positions together, as one patch."""
    prompts: int = 16
    """Prompts; every cell is patched for each."""
    seed: int = 0
    """Seed of the prompts and of the spot check."""
    memory: int = 1024
    """MiB that the sweep may use beyond the model."""
    format: str | None = None
    """Task to pose to a model that has no run.json, such as parity-aligned."""
    dry_run: bool = False
    """Print patches, FLOPs, peak memory and expected time, and do nothing."""
    out: Path | None = None
    """Folder for the results; default mnemoscope-out/<run>."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Plans, computes, checks and writes; status 0."""
        from experiments import load
        from experiments.support.console import print_table
        from experiments.support.results import as_parquet, result_folder, work_folder, write_result
        from interp.patching import plan

        run = load(self.name, self.format)
        clean, corrupted = self.pair(run)
        places = self.places(clean)
        sweep = plan(
            run.raw,
            clean,
            corrupted,
            self.site,
            self.make_metric(run, clean),
            self.layers,
            places,
            self.heads,
            self.direction,
            self.memory * 2**20,
        )
        if self.dry_run:
            return self.show_plan(sweep)
        folder = result_folder(run, self.out)
        stem = folder / f"patch-{self.site}"
        identity = {k: str(v) for k, v in asdict(self).items() if k not in ("out", "json", "dry_run")}
        with work_folder(folder, run, f"patch-{self.site}", identity) as work:
            effect = self.compute(sweep, work)
            options = {k: v for k, v in asdict(self).items() if k not in ("out", "json")}
            top = [{"cell": list(cell), "change": change} for cell, change in effect.top(10)]
            data = {"options": options, "effect": effect.summary(), "top": top}
            others = [
                (stem.with_suffix(".parquet"), as_parquet(effect.to_dataframe())),
                (stem.with_suffix(".svg"), self.drawn(effect)),
            ]
            written = write_result(stem.with_suffix(".json"), run, self.seed, data, others=others)
        if self.json:
            print(json.dumps(written))
            return 0
        base, source = float(effect.base.mean()), float(effect.source.mean())
        title = f"{run.name}, {self.site}: changes of the {effect.metric} (base {base:.3f}, source {source:.3f})"
        rows = [[" ".join(str(c) for c in cell), f"{change:+.3f}"] for cell, change in effect.top(10)]
        print_table(title, [" ".join(effect.axes), "change"], rows)
        checks, cost = effect.checks, effect.cost
        assert checks is not None
        assert cost is not None
        print(
            f"{cost.patches} patches, {cost.skipped} of which cannot matter; {cost.loop_flops / cost.flops:.1f} times "
            f"fewer FLOPs than one forward a patch; {checks.spot_cells} cells equal the literal loop to "
            f"{checks.spot_difference:.1e} (allowed {checks.tolerance:.1e})"
        )
        for suffix in (".parquet", ".json", ".svg"):
            print(stem.with_suffix(suffix))
        return 0

    def pair(self, run: Run) -> tuple[Batch, Batch]:
        """The clean prompts and their corrupted twins."""
        from experiments.support.results import check_seed
        from interp.tasks import Role, counterfactual

        if self.prompts < 1:
            raise ValueError(f"--prompts must be at least 1; got {self.prompts}")
        check_seed(self.seed)
        clean = run.sample(self.prompts, self.length, self.seed)
        match self.corrupt:
            case "flip_input":
                return clean, counterfactual.flip_input(clean, self.step)
            case "redraw":
                return clean, counterfactual.redraw(clean, self.seed + 1)
            case _:
                role = Role.INPUT_LABEL if self.corrupt == "swap_input_labels" else Role.OUTPUT_LABEL
                clean = self.unequal(run)
                return clean, counterfactual.swap_labels(clean, self.step, self.partner, role=role)

    def unequal(self, run: Run) -> Batch:
        """Prompts whose inputs at --step and --partner differ: where they are equal, a trade changes no answer."""
        from interp.tasks import Role

        if self.step == self.partner:
            raise ValueError(f"--partner must be another step than --step; both are {self.step}: nothing to trade")
        many = run.sample(8 * self.prompts + 64, self.length, self.seed)
        first, second = (many.tokens[:, many.at(Role.INPUT, s)[0]] for s in (self.step, self.partner))
        found = (first != second).nonzero().flatten()[: self.prompts]
        assert len(found) == self.prompts, "half of random prompts have unequal bits"
        return many.rows(found)

    def places(self, batch: Batch) -> list | None:
        """The positions asked for."""
        from interp.patching import Joint
        from interp.tasks import Role

        roles = {role.name.lower(): role for role in Role}

        def place(text: str):  # type: ignore[no-untyped-def]
            role, colon, step = text.partition(":")
            if text.isdecimal():
                return int(text)
            if role not in roles or (colon and not step.isdecimal()):
                raise ValueError(f"unknown position {text!r}; give an index, a role ({', '.join(roles)}) or role:step")
            return (roles[role], int(step)) if colon else roles[role]

        if not self.positions:
            if self.joint:
                raise ValueError("--joint needs --positions")
            return None
        found = [place(p) for p in self.positions]
        return [Joint(*found)] if self.joint else found

    def make_metric(self, run: Run, clean: Batch) -> Metric:
        """The metric asked for."""
        from interp import patching
        from interp.forward import predict
        from interp.tasks import Role

        if self.metric == "kl":
            reference = predict(run.raw, clean, clean.at(Role.OUTPUT, self.step))
            return patching.kl(clean, reference, self.step)
        if self.metric == "logit_diff" and len(clean.format.outputs) > 2:
            raise ValueError(f"{clean.format} has more than two answers; use --metric probability, accuracy or kl")
        return getattr(patching, self.metric)(clean, self.step)

    def show_plan(self, sweep: Sweep) -> int:
        """Prints what would be done."""
        cost = sweep.cost
        seconds = 0.0
        if sweep.units:
            unit = sweep.units[len(sweep.units) // 2]
            began = time.perf_counter()
            sweep.compute(unit)
            seconds = (time.perf_counter() - began) * len(sweep.units)
        found = {**asdict(cost), "peak_bytes": sweep.peak_bytes, "expected_seconds": round(seconds, 1)}
        if self.json:
            print(json.dumps(found))
            return 0
        print(f"{cost.patches} patches for each of {self.prompts} prompts, {cost.skipped} of which cannot matter")
        print(
            f"{cost.flops:.3g} FLOPs; one forward a patch would take {cost.loop_flops:.3g}, "
            f"any exact method at least {cost.lower_bound_flops:.3g}"
        )
        print(f"at most {sweep.peak_bytes / 2**20:.0f} MiB beyond the model; about {seconds:.0f} s here")
        return 0

    def compute(self, sweep: Sweep, work: Path) -> PatchEffect:
        """Runs the units that are not on disk yet; each is written whole as soon as it is done, in the work folder."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from experiments.support.progress import progress_bar
        from interp.support.writing import write_tensors

        values = sweep.blank()
        began = time.monotonic()
        for unit in progress_bar(sweep.units, desc=self.site):
            path = work / f"{unit.number}.safetensors"
            try:
                found = load_file(path)["values"]
            except (FileNotFoundError, SafetensorError, KeyError):  # not done yet, or cut short with the machine
                found = sweep.compute(unit)
                write_tensors(path, {"values": found})
            sweep.put(values, unit, found)
        try:
            return sweep.finish(values, seed=self.seed, seconds=time.monotonic() - began)
        except RuntimeError as error:  # a failed check: these numbers must not be found again
            for unit in sweep.units:
                (work / f"{unit.number}.safetensors").unlink()
            raise ValueError(str(error)) from error

    def drawn(self, effect: PatchEffect) -> str:
        """The heat map: layer by position; with heads, layer by head, summed over positions in absolute value."""
        from experiments.support.results import as_svg
        from interp.views.heatmap import heat_map

        change = effect.change.mean(dim=-1)
        layers = [f"L{layer}" for layer in effect.labels["layer"]]
        title = f"{self.name}: patching {self.site} ({effect.direction}), length {self.length}"
        unit = f"change in {effect.metric}"
        if "head" not in effect.axes:
            columns = [str(c) for c in effect.labels["pos"]]
            groups = [c.split(": ")[-1].rstrip(" 0123456789") for c in columns]
            return as_svg(heat_map(change, layers, columns, title, unit, groups))
        columns = [f"H{h}" for h in effect.labels["head"]]
        peak = change.gather(2, change.abs().argmax(dim=2, keepdim=True))[..., 0]
        return as_svg(heat_map(peak, layers, columns, f"{title}, the position that moves it most", unit))
