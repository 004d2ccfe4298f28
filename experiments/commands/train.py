"""`mnemoscope train`: train a run from scratch or from pretrained weights; the same command resumes a killed one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.support.options import Flag, Folder, Number, OptionalFloat, OptionalNumber, computed

if TYPE_CHECKING:
    from experiments.training.loop import Trained
    from experiments.training.recipe import Recipe

# Options of a model that starts from random weights.
OF_NEW = ("n_layers", "d_model", "n_heads", "n_ctx")


def labels_in(name: str) -> str:
    """Return who writes the labels where a training measures step accuracy; "" for a format without labels.

    >>> labels_in("parity-aligned"), labels_in("parity-nonaligned"), labels_in("parity-scratchpad")
    (', labels written', ', labels given', '')
    """
    from experiments.support.evidence_text import WRITER
    from interp.tasks import parse_format
    from probes.competence import modes_of_format

    fmt = parse_format(name)
    return f", labels {WRITER[modes_of_format(fmt)[-1]]}" if fmt.labels else ""


@dataclass(frozen=True)
class TrainCommand:
    """Train a model on a task: mnemoscope train parity-aligned-alibi --seed 1.

    The same command resumes after an interruption; on a CPU with the same --threads the weights are bit-identical. A
    finished run is only reported. The exit status is 0 also for a model that did not learn, which is a result: the line
    begins with "did NOT learn".
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """<task>-<format>-<family>, such as parity-aligned-alibi; families: alibi, rotary, none, absolute, alibi_sink.
    A size may follow, layers x width x heads: parity-aligned-alibi_24x1024x16. A condition of rehearsal may follow
    after +: parity-aligned-alibi+lookup20, +copying60, +disjoint60 (labels that parity never has), +own60 (the format's
    fixed labels) or +none. Default: lookup of up to 60 pairs."""
    seed: Number = 1
    """Seed of the initial weights and of the data order."""
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="MODEL", help_behavior_hint="")] = None
    """Start from a pretrained model: a fetched model such as smollm2-135m, a folder that save_pretrained wrote, or a
    hub name such as bigscience/bloomz-560m. Default: random weights."""
    lora: OptionalNumber = None
    """With --from: train LoRA adapters of this rank, and store these alone; the run loads on top of the pretrained
    model. Needs the extra pretrained. Default: train and store all weights."""
    scratch: Flag = False
    """With --from: keep the model's architecture and tokenizer, and draw its weights anew. Default: train on from its
    weights."""
    out: Folder = Path("mnemoscope-out")
    """Folder in which the run's own folder is made."""
    steps: OptionalNumber = None
    """Maximum of optimiser steps. Default: 3000 for parity and 6000 for addition; 300 and 800 with --from. A competent
    model stops earlier."""
    longest: OptionalNumber = None
    """Longest trained length. Default: 20 bits for parity, 10 digits for addition."""
    shortest: Number = 1
    """Shortest trained length. The paper trains on 10 to 20 bits: --shortest 10."""
    rehearsal: OptionalFloat = None
    """Share of each step's tokens that is in-context recall, the stand-in for pretraining. Default: 0.5, and 0 with
    the option --from."""
    n_layers: OptionalNumber = None
    """Number of layers. Default: 3, or what the name says."""
    d_model: OptionalNumber = None
    """Width of the residual stream. Default: 128, or what the name says."""
    n_heads: OptionalNumber = None
    """Heads per layer. Default: 8, or what the name says."""
    n_ctx: Number = 512
    """Positions of the absolute family, and of position augmentation."""
    tokens: OptionalNumber = None
    """Tokens per optimiser step. Default: 4096; 1024 with --from, and 640 with --lora."""
    lr: OptionalFloat = None
    """Highest learning rate. Default: 2e-3; 3e-4 with --from, and 1e-3 with --lora; with --tokens times the square root
    of how many times more tokens a step has (Malladi et al. 2205.10287)."""
    positions: Literal["plain", "start", "jump"] = "plain"
    """Position augmentation: none, a random start, or a random jump after the separator."""
    precision: Annotated[Literal["no", "bf16"] | None, computed("{no,bf16}")] = None
    """Mixed precision. Default: bf16 on a GPU that supports it, else no."""
    attention: Annotated[Literal["eager", "sdpa"], tyro.conf.arg(metavar="{eager,sdpa}")] = "eager"
    """sdpa computes attention by torch's fused kernel, in families that have it (not alibi); weights then differ from
    those of eager by rounding."""
    compile: Flag = False
    """Train with kernels that torch.compile makes: fewer launches on a GPU, once it has compiled them. Weights
    then differ by rounding. Default: the model's own kernels."""
    cuda_graphs: Flag = False
    """On a GPU: capture the steps of each shape of batch as a CUDA graph, and repeat them: one launch in place of
    thousands. Batches are padded to few shapes; weights then differ by rounding. Default: each kernel by itself."""
    device: Annotated[Literal["auto", "cpu"], tyro.conf.arg(metavar="{auto,cpu}")] = "auto"
    """auto trains on the GPUs that accelerate finds, else on the CPU; cpu trains on the CPU."""
    threads: OptionalNumber = None
    """CPU threads. Default: all cores. Bit-identical resuming needs the same number."""

    def run(self) -> int:
        """Train and print the outcome; status 0 also when the model did not learn, which is a result."""
        self._check()
        import torch
        from accelerate import PartialState

        from experiments.support.console import say, warn

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        trained = self.trained()
        if not PartialState().is_main_process:  # one of several processes prints
            return 0
        recipe = self.recipe()
        reached = f"step accuracy {trained.step_accuracy:.3f} at length {recipe.longest}"
        reached += f"{labels_in(recipe.format)}, {trained.steps} steps"
        if trained.competent:
            say(f"learned: {reached}")
        else:
            say(
                f"did NOT learn: {reached} (competent from .95); try another --seed, or more --steps with another --out"
            )
        say(trained.folder)
        if trained.competent:
            warn(f"next: mnemoscope evaluate {shlex.quote(str(trained.folder))}")
        return 0

    def _check(self) -> None:
        """Raise `ValueError` for an unknown name, format or source of weights; imports no library."""
        from experiments.support.option_checks import check_workers
        from experiments.support.run_checks import check_format, check_runs
        from experiments.training.run_name import check_format_alone, split_name

        if self.threads is not None:
            check_workers("threads", self.threads)
        if self.source is None:
            check_format(split_name(self.name).format)
        else:
            self._check_adapted()
            check_format_alone(self.name, self.source)
            begun = any(self.out.glob(f"*-seed{self.seed}/run.json"))  # a finished run needs no source
            check_runs([] if begun else [self.source], self.name)

    def _check_adapted(self) -> None:
        """Raise `ValueError` for options that a pretrained model leaves no choice of, and for adapters of no rank."""
        if given := [name for name in OF_NEW if getattr(self, name) != getattr(type(self), name)]:
            option = given[0].replace("_", "-")
            raise ValueError(f"--{option} is for models that start from random weights; leave it out with --from")
        if self.lora is not None and self.lora < 1:
            raise ValueError(f"--lora must be at least 1; got {self.lora}; leave it out to train all weights")

    def trained(self) -> Trained:
        """Train with the current number of threads; return where and how well."""
        import torch

        from experiments.support.results import writable_folder
        from experiments.training.loop import train_run

        precision = self.precision
        if precision is None:
            precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
        folder, cpu = writable_folder(self.out), self.device == "cpu"
        kernels = {"attention": self.attention, "compile": self.compile, "cuda_graphs": self.cuda_graphs}
        return train_run(self.recipe(), folder, precision, cpu=cpu, **kernels)

    @property
    def format(self) -> str:
        """The format that the name says. Raises `ValueError` for a name that is none."""
        from experiments.training.run_name import split_name

        return split_name(self.name).format if self.source is None else self.name

    def recipe(self) -> Recipe:
        """Return the recipe of these options. Raises `ValueError` for options that contradict the name."""
        from experiments.training.recipe import Pretrained, Recipe, fine_tuning
        from experiments.training.run_name import check_format_alone, split_name
        from interp.models import ModelConfig
        from interp.support.sizes import Size

        given = {"longest": self.longest, "rehearsal": self.rehearsal, "lr": self.lr}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.source is None:
            named = split_name(self.name)
            if "+" in self.name:
                chosen |= self._rehearsed(named.condition)
            sizes = named.size._asdict() if named.size else {}
            for field in Size._fields:
                if (given := getattr(self, field)) is not None and sizes.setdefault(field, given) != given:
                    option = field.replace("_", "-")
                    raise ValueError(
                        f"{self.name} has {option} {sizes[field]}, and --{option} says {given}; leave it out"
                    )
            if self.lora is not None:
                raise ValueError("--lora adapts a pretrained model: name it with --from")
            if self.scratch:
                raise ValueError("--scratch needs --from MODEL; without it all weights are drawn anew")
            longest, steps = (10, 6000) if named.format.startswith("addition") else (20, 3000)
            steps = steps if self.steps is None else self.steps
            # One construction: what a recipe needs of n_ctx is checked with the lengths that were asked for.
            recipe = Recipe(
                named.format,
                ModelConfig(named.family, n_ctx=self.n_ctx, **sizes),
                self.seed,
                steps,
                cooldown=min(1000, steps // 3),
                **{"longest": longest, **chosen},
            )
        else:
            check_format_alone(self.name, self.source)
            usual = fine_tuning(self.name, Pretrained(self.source, self.lora or 0, self.scratch), self.seed, self.steps)
            recipe = replace(usual, **chosen)
        if self.tokens is not None:
            if self.tokens < 1:
                raise ValueError(f"--tokens must be at least 1; got {self.tokens}")
            lr = recipe.lr if self.lr is not None else recipe.lr * (self.tokens / recipe.tokens) ** 0.5
            recipe = replace(recipe, tokens=self.tokens, lr=lr)
        return replace(recipe, positions=self.positions, shortest=self.shortest)

    def _rehearsed(self, condition: str) -> dict[str, Any]:
        """Return the fields of a recipe that the condition of rehearsal in the name sets."""
        from experiments.training.rehearsal import parse_condition

        parsed = parse_condition(condition)
        fields: dict[str, Any] = {"condition": condition}
        if parsed.what == "none":
            if self.rehearsal:
                raise ValueError(f"{self.name} has no rehearsal, and --rehearsal says {self.rehearsal}; leave it out")
            return fields | {"rehearsal": 0.0}
        return fields | {"rehearsal_longest": parsed.longest}
