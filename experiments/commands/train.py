"""`mnemoscope train`: trains a run from scratch, and goes on where a killed one stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from experiments.training.loop import Trained
    from experiments.training.recipe import Recipe


@dataclass(frozen=True)
class TrainCommand:
    """Train a model from scratch: `mnemoscope train parity-aligned-alibi --seed 1`.

    The same command goes on where a killed or interrupted one stopped; on a CPU with the same --threads it ends
    in the same weights, bit for bit. Once they are there it only says so.
    """

    name: Annotated[str, tyro.conf.Positional]
    """<task>-<format>-<family>, such as parity-aligned-alibi; families: alibi, rotary, none, absolute, alibi_sink.
    A size may follow, layers x width x heads: parity-aligned-alibi_24x1024x16."""
    seed: int = 1
    """Initialisation and data order."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Go on from a pretrained model: a folder that save_pretrained wrote, or a hub name (bigscience/bloomz-560m)."""
    out: Path = Path("mnemoscope-out")
    """Folder in which the run's own folder is made."""
    steps: int | None = None
    """Most optimiser steps; default 3000 for parity, 6000 for addition. A competent model stops earlier."""
    longest: int | None = None
    """Longest length trained on; default 20 bits for parity, 10 digits for addition."""
    rehearsal: float | None = None
    """Share of each step's tokens that is in-context recall, the stand-in for pretraining; default 0.5, and 0 with
    --from."""
    n_layers: int | None = None
    """Default 3, or what the name says."""
    d_model: int | None = None
    """Default 128, or what the name says."""
    n_heads: int | None = None
    """Default 8, or what the name says."""
    n_ctx: int = 512
    """Positions of the absolute family, and the room for position augmentation."""
    lr: float | None = None
    """Highest learning rate; default 2e-3, and 1e-4 with --from."""
    positions: Literal["plain", "start", "jump"] = "plain"
    """Position augmentation: none, a random start, or a random jump after the separator."""
    precision: Literal["no", "bf16"] | None = None
    """Mixed precision; default bf16 on a GPU that has it, else no."""
    threads: int | None = None
    """CPU threads; default all cores. Bit-identical resuming needs the same number."""

    def run(self) -> int:
        """Trains; status 0 also when the model did not learn, which is a result."""
        import torch
        from accelerate import PartialState

        from experiments.support.results import check_workers

        if self.threads is not None:
            check_workers("threads", self.threads)
            torch.set_num_threads(self.threads)
        trained = self.trained()
        if not PartialState().is_main_process:  # one of several says it
            return 0
        reached = f"step accuracy {trained.step_accuracy:.3f} at length {self.recipe().longest}, {trained.steps} steps"
        if trained.competent:
            print(f"learned: {reached}")
        else:
            print(f"did NOT learn: {reached} (competent from .95); try more --steps or another --seed")
        print(trained.folder)
        print(f"next: mnemoscope evaluate {trained.folder}", file=sys.stderr)
        return 0

    def trained(self) -> Trained:
        """Trains with the threads that there are."""
        import torch

        from experiments.support.results import writable_folder
        from experiments.training.loop import train_run

        precision = self.precision
        if precision is None:
            precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
        return train_run(self.recipe(), writable_folder(self.out), precision)

    def recipe(self) -> Recipe:
        """The recipe that these options mean."""
        from experiments.training.recipe import Pretrained, Recipe
        from interp.models import ModelConfig
        from interp.support.sizes import Size, split_kind

        if self.source is None:
            fmt, _, kind = self.name.rpartition("-")
            family, named = split_kind(kind)
            sizes = named._asdict() if named else {}
            for field in Size._fields:
                if (given := getattr(self, field)) is not None and sizes.setdefault(field, given) != given:
                    word = field.replace("_", "-")
                    raise ValueError(f"{self.name} has {word} {sizes[field]}, and --{word} says {given}; leave it out")
            model, lr, rehearsal = ModelConfig(family, n_ctx=self.n_ctx, **sizes), 2e-3, 0.5
        else:
            fmt, model, lr, rehearsal = self.name, Pretrained(self.source), 1e-4, 0.0
        longest, steps = (10, 6000) if fmt.startswith("addition") else (20, 3000)
        steps = steps if self.steps is None else self.steps
        return Recipe(
            fmt,
            model,
            self.seed,
            steps,
            longest if self.longest is None else self.longest,
            cooldown=min(1000, steps // 3),
            rehearsal=rehearsal if self.rehearsal is None else self.rehearsal,
            lr=lr if self.lr is None else self.lr,
            positions=self.positions,
        )
