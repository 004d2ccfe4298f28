"""`mnemoscope patch`: exhaustive activation patching of one site, on a task or on text."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.patch_inputs import LARGEST, check_options, inputs_of, task_pair, with_steps
from experiments.support.options import (
    AsJson,
    Device,
    Dtype,
    Flag,
    FormatName,
    Length,
    Memory,
    Number,
    OneModel,
    OptionalNumber,
    OptionalNumbers,
    ResultFolder,
    Texts,
    computed,
)
from experiments.support.text_prompts import TakesText

if TYPE_CHECKING:
    from interp.circuits.validity import Validity
    from interp.models import Run
    from interp.patching import PatchEffect, Sweep
    from interp.tasks import Batch

ENDS = (".parquet", ".json", ".svg")
# Options that change no number, or are in the work folder's name by the run's own device and type.
NO_PART = ("out", "json", "dry_run", "device", "dtype", "workers", "engine", "gpus")


@dataclass(frozen=True)
class PatchCommand(TakesText):
    """Patch activations of one site between clean and corrupted prompts, at every layer and position.

    On a task, prompts are drawn: mnemoscope patch parity-aligned-alibi --step 7. On text, they are given:
    mnemoscope patch gpt2 --clean "..." --corrupted "..." --answer " Mary" --other " John".
    Writes patch-<site>.parquet (every cell and prompt), .json (checks, cost, provenance) and .svg (heat map); with a
    coarser --matmul patch-<site>-<matmul>, beside exact results. Effects in a model that cannot do the task are marked
    as invalid. The same command resumes after an interruption.
    """

    name: OneModel
    site: Annotated[str, tyro.conf.arg(metavar="SITE")] = "resid_pre"
    """resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z, pattern, mlp_pre or mlp_post."""
    metric: Literal["logit_diff", "probability", "accuracy", "kl"] = "logit_diff"
    """Measure of the task's answer at --step, or of --answer after the last token; kl is from the clean run."""
    clean: Texts = ()
    """Clean prompts, one or more texts; all pairs must have the same number of tokens. Default: prompts of the run's
    task."""
    corrupted: Texts = ()
    """Corrupted prompts, as many as clean ones and of as many tokens. Default: made from the task's (--corrupt)."""
    answer: Texts = ()
    """Answer to text prompts: one token, usually with its leading space, for all prompts or one per prompt. Needed with
    --clean, except for kl."""
    other: Texts = ()
    """Wrong answer to text prompts, one token for all or one per prompt. Needed with --clean and logit_diff."""
    length: Length = 20
    """Length of task prompts: bits, or digits of both operands."""
    step: OptionalNumber = None
    """Output step of a task whose answer is read. Default: 10, or the last one of shorter prompts."""
    corrupt: Literal["flip_input", "swap_input_labels", "swap_output_labels", "redraw"] = "flip_input"
    """How task prompts are corrupted: flip the bit of --step and keep the scratchpad; swap the labels of --step and
    --partner on one side, in prompts whose bits differ there; or draw another random prompt."""
    partner: OptionalNumber = None
    """Step whose label is swapped with that of --step, for the two corruptions that swap. Default: 5, or another one
    that the prompts have."""
    direction: Literal["denoise", "noise"] = "denoise"
    """Put clean activations into the corrupted run (denoise), or corrupted ones into the clean run (noise)."""
    layers: OptionalNumbers = None
    """Layers, from 0. Default: all."""
    heads: OptionalNumbers = None
    """Heads, from 0, of q, k, v, z and pattern. Default: all."""
    positions: Annotated[tuple[str, ...], computed("POSITION [POSITION ...]")] = ()
    """Indices; for tasks also roles such as input_label, or role:step such as output:5. Default: every position."""
    joint: Flag = False
    """Patch all of --positions together, as one patch. Default: each one alone."""
    prompts: Number = 16
    """Number of task prompts; every cell is patched in each of them."""
    seed: Number = 0
    """Seed of task prompts and of the cells that are checked against the literal loop."""
    memory: Memory = None
    matmul: Literal["exact", "tf32", "bfloat16"] = "exact"
    """Matrix products of patched runs: exact, or coarser and faster on devices that have them (tf32: CUDA). The error
    is then measured on 16 cells, printed and written, in files of their own."""
    workers: Number = 1
    """Processes that compute units of the sweep at once: with one thread each on a CPU; on GPUs, one after the other
    of the machine's."""
    engine: Literal["local", "ray"] = "local"
    """Where --workers run: local processes, or an existing Ray cluster whose nodes share --out."""
    gpus: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """GPUs per worker with --engine ray."""
    format: FormatName = None
    device: Device = "auto"
    dtype: Dtype = None
    dry_run: Flag = False
    """Print the number of patches, FLOPs, peak memory and expected time, and stop. Default: patch."""
    out: ResultFolder = None
    json: AsJson = False

    @property
    def bytes(self) -> int | None:
        """The memory of --memory in bytes; None without it."""
        return None if self.memory is None else self.memory * 2**20

    def run(self) -> int:
        """Plan, compute, check and write; status 0."""
        check_options(self)
        from experiments.circuit_printing import say_files
        from experiments.patch_printing import show_effect, show_plan
        from experiments.patch_validity import validity_of_sweep
        from experiments.support.console import warn
        from experiments.support.results import result_folder

        run, sweep = self.planned()
        self.warn_of_spaces(run)
        if self.dry_run:
            show_plan(self, sweep)
            return 0
        folder = result_folder(run, self.out, [self.stem + end for end in ENDS])
        validity = validity_of_sweep(run, self, sweep)
        if validity is not None and not validity.valid:
            warn(f"warning: the effects will be invalid: {validity.reason}")
        effect, written = self._write(run, sweep, folder / self.stem, validity)
        if self.json:
            print(json.dumps(written))
        else:
            show_effect(run, effect, validity, self.matmul)
            say_files(folder, [self.stem + end for end in ENDS])
        return 0

    @property
    def stem(self) -> str:
        """The name of the result files without their ends. Coarser products do not replace exact results."""
        return f"patch-{self.site}" if self.matmul == "exact" else f"patch-{self.site}-{self.matmul}"

    def planned(self) -> tuple[Run, Sweep]:
        """Load the run and plan the sweep."""
        from experiments import load
        from experiments.support.loading import complete_format
        from interp.patching import plan

        run = load(self.name, complete_format(self.format, None, self.name), device=self.device, dtype=self.dtype)
        inputs = inputs_of(run, self)
        sweep = plan(
            run,
            inputs.clean,
            inputs.corrupted,
            site=self.site,
            metric=inputs.metric,
            layers=self.layers,
            positions=inputs.places,
            heads=self.heads,
            direction=self.direction,
            memory=self.bytes,
            matmul=self.matmul,
        )
        return run, sweep

    def _write(self, run: Run, sweep: Sweep, stem: Path, validity: Validity | None = None) -> tuple[PatchEffect, dict]:
        """Compute what is missing and write the files; return the effect, and what the JSON file holds."""
        from experiments.support.finished import warn_replaced, why_other_result
        from experiments.support.results import as_parquet, work_folder, write_result

        chosen = asdict(self if self.is_text else with_steps(self))
        asked = {k: v for k, v in chosen.items() if k not in NO_PART}
        identity = {k: str(v) for k, v in asked.items()}
        with work_folder(stem.parent, run, self.stem, identity) as work:
            effect = self.compute(sweep, work)
            warn_replaced(stem.with_suffix(".json"), partial(why_other_result, run, self.seed, asked))
            options = {k: v for k, v in chosen.items() if k not in ("out", "json", "workers", "engine", "gpus")}
            top = [{"cell": list(cell), "change": change} for cell, change in effect.top(LARGEST)]
            data = {"options": options, "effect": effect.summary(), "top": top}
            data |= {} if validity is None else {"competence": validity.to_json()}
            picture = self.drawn(effect, valid=validity is None or validity.valid)
            others = [
                (stem.with_suffix(".parquet"), as_parquet(effect.to_dataframe())),
                (stem.with_suffix(".svg"), picture),
            ]
            return effect, write_result(stem.with_suffix(".json"), run, self.seed, data, others=others)

    def pair(self, run: Run) -> tuple[Batch, Batch]:
        """Return the clean task prompts and their counterfactuals."""
        return task_pair(run, self)

    def compute(self, sweep: Sweep, work: Path) -> PatchEffect:
        """Run the units that are not in the work folder yet, write each when it is done, and check the result."""
        from safetensors.torch import load, save

        from experiments.patch_units import compute_elsewhere, unit_file
        from experiments.support.progress import progress_bar
        from interp.support.writing import read_digested, write_digested

        values = sweep.blank()
        began = time.monotonic()
        alone = self.workers == 1 and self.engine == "local"
        if not alone:
            with progress_bar(total=len(sweep.units), desc=f"patching {self.site}", unit="unit") as bar:
                for done in compute_elsewhere(self, sweep, work):
                    bar.update(done)
        for unit in progress_bar(sweep.units, desc=f"patching {self.site}", unit="unit", shown=alone):
            path = unit_file(work, unit)
            if (kept := read_digested(path)) is not None:
                part = load(kept)["values"]
            else:
                part = sweep.compute(unit)
                write_digested(path, save({"values": part.contiguous()}))
            sweep.put(values, unit, part)
        try:
            return sweep.finish(values, seed=self.seed, seconds=time.monotonic() - began)
        except RuntimeError as error:  # a check failed: these numbers must not be resumed
            for unit in sweep.units:
                unit_file(work, unit).unlink()
            raise ValueError(str(error)) from error

    def drawn(self, effect: PatchEffect, valid: bool = True) -> str:
        """Return the heat map as SVG: layer by position, or layer by head at the position that changes most."""
        from interp import views

        what = "text" if self.is_text else f"length {self.length}"
        title = f"{Path(self.name).name}: patching {self.site} ({effect.direction}), {what}"
        return views.effect(effect, title if valid else f"INVALID: {title}").still.decode()
