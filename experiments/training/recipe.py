"""Recipes: everything that is needed to train a run again, and the training data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from experiments.training.rehearsal import ORDERED, SHUFFLED, USUAL, check_condition, orders, positions_of, rehearse
from interp.models import ModelConfig
from interp.tasks import Batch, Vocabulary, check_length, default_vocabulary, parse_format, sample, sequence_length

POSITIONS = ("plain", "start", "jump")


@dataclass(frozen=True)
class Pretrained:
    """A model to start from: a fetched model's name, a folder that `save_pretrained` wrote, or a hub name.

    `lora` is the rank of the adapters that are trained; 0 trains all weights. With `scratch` its architecture and
    tokenizer are kept and its weights are drawn anew: the control that tells pretraining from architecture.
    """

    source: str
    lora: int = 0
    scratch: bool = False

    @property
    def kind(self) -> str:
        """The last part of its name, and the rank; it stands where other runs' names have the positional encoding."""
        name = Path(self.source).name + (f"-lora{self.lora}" if self.lora else "")
        return name + ("-scratch" if self.scratch else "")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, apart from thread count, device and library versions.

    Lengths grow from 1 to `longest` (bits, or digits for addition) over `ramp` steps; starting short breaks the XOR
    trap (probes/README.md, Recipes). With `shortest` above 1, no shorter length is trained. A share `rehearsal` of each
    step's tokens is in-context recall, ordered and shuffled, whose lengths grow to `rehearsal_longest` pairs; every
    format uses the same, unless `condition` names something else to rehearse (`experiments.training.rehearsal`). The
    learning rate warms up and stays constant. Once the model is competent at the longest lengths of both, or at step
    `steps - cooldown`, it cools down linearly to the share `final_lr` over `cooldown` steps, and training stops.
    """

    format: str
    model: ModelConfig | Pretrained
    seed: int
    steps: int = 3000
    longest: int = 20
    ramp: int = 1500
    rehearsal: float = 0.5
    rehearsal_longest: int = 60
    rehearsal_ramp: int = 1500
    tokens: int = 4096
    lr: float = 2e-3
    warmup: int = 100
    cooldown: int = 1000
    final_lr: float = 0.02
    weight_decay: float = 0.1
    clip: float = 1.0
    competent: float = 0.995
    positions: str = "plain"
    position_ramp: int = 1500
    condition: str = ""
    shortest: int = 1

    def __post_init__(self) -> None:
        parse_format(self.format)
        if self.positions not in POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}; got {self.positions!r}")
        plain = self.positions == "plain"
        if not plain and (isinstance(self.model, Pretrained) or self.model.family not in ("rotary", "absolute")):
            raise ValueError(f"family {self.model.kind} has no position ids; use positions='plain'")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be an integer from 0 to 2**32 - 1; got {self.seed}")
        if not 0 <= self.rehearsal < 1:
            raise ValueError(f"rehearsal is a share from 0 to below 1; got {self.rehearsal}")
        if isinstance(self.model, Pretrained) and self.model.lora < 0:
            raise ValueError(f"the rank of LoRA must be at least 1, or 0 for none; got {self.model.lora}")
        if isinstance(self.model, Pretrained) and self.model.scratch and self.model.lora:
            raise ValueError("adapters need pretrained weights; leave out either the rank of LoRA or scratch")
        if not 0 < self.lr < 1:
            raise ValueError(f"lr must be between 0 and 1; got {self.lr}")
        for name in ("steps", "longest", "tokens", "rehearsal_longest", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.shortest > self.longest:
            raise ValueError(f"shortest must be at most longest, {self.longest}; got {self.shortest}")
        if self.condition:
            if isinstance(self.model, Pretrained):
                raise ValueError("conditions of rehearsal are for models that start from random weights")
            check_condition(self.condition, parse_format(self.format), self.rehearsal, self.rehearsal_longest)
        needs = [(parse_format(self.format), self.longest)]
        if self.rehearsal:
            needs.append((parse_format("recall-ordered"), self.rehearsal_longest))
        for fmt, length in needs:
            if isinstance(self.model, Pretrained):
                continue  # checked against its tokenizer and positions when they are read
            check_length(fmt, length, default_vocabulary())
            if self.model.family == "absolute" and (need := sequence_length(fmt, length)) > self.model.n_ctx:
                raise ValueError(f"length {length} of {fmt} takes {need} positions; n_ctx is {self.model.n_ctx}")

    @property
    def name(self) -> str:
        """The folder's name, `<task>-<format>-<kind>-seed<seed>`.

        The kind is a family, with the size if unusual, the condition of rehearsal if the recipe names one, and the
        shortest length if above 1.
        """
        return f"{parse_format(self.format)}-{self.kind}-seed{self.seed}"

    @property
    def kind(self) -> str:
        """What is trained, but for its format and seed: "alibi", "alibi_6x128x8", "alibi+lookup20", "alibi+from10"."""
        from_length = f"+from{self.shortest}" if self.shortest > 1 else ""
        return self.model.kind + (f"+{self.condition}" if self.condition else "") + from_length

    def to_json(self) -> dict:
        """Return a plain dictionary; `from_json` reads it."""
        data = asdict(self)
        if isinstance(self.model, Pretrained):
            # As in records from before there were these.
            data["model"] = {k: v for k, v in data["model"].items() if k == "source" or v}
        if not self.condition:
            del data["condition"]  # as in records from before there were conditions
        if self.shortest == 1:
            del data["shortest"]  # likewise
        return data

    @classmethod
    def from_json(cls, data: dict) -> Recipe:
        """Return the recipe that `to_json` wrote."""
        model = data["model"]
        return cls(**{**data, "model": Pretrained(**model) if "source" in model else ModelConfig(**model)})


def fine_tuning(fmt: str, model: Pretrained, seed: int, steps: int | None = None) -> Recipe:
    """Return the recipe for a pretrained model: no rehearsal, at most 300 steps, and 800 for addition.

    It was found on seed 1 of each task with SmolLM2-135M. Adapters take a higher rate than full weights.
    """
    is_addition = fmt.startswith("addition")
    if steps is None:
        steps = 800 if is_addition else 300
    tokens, lr, ramp, cooldown = (640, 1e-3, 80, 60) if model.lora else (1024, 3e-4, 100, 100)
    return Recipe(
        fmt,
        model,
        seed,
        steps,
        longest=10 if is_addition else 20,
        ramp=min(ramp, steps // 3),
        rehearsal=0.0,
        tokens=tokens,
        lr=lr,
        warmup=20,
        cooldown=min(cooldown, steps // 3),
    )


@dataclass(frozen=True)
class TrainingPart:
    """One of the batches of a step, with its weight in the loss."""

    name: str
    batch: Batch
    weight: float


def parts(recipe: Recipe, step: int, process: int = 0, vocabulary: Vocabulary | None = None) -> list[TrainingPart]:
    """Return the data of one training step, a pure function of the arguments, so that resuming needs no state.

    `vocabulary` is the trained model's; the default is `default_vocabulary()`.

    >>> recipe = Recipe("parity-aligned", ModelConfig("alibi"), seed=0)
    >>> [(p.name, p.batch.length, len(p.batch)) for p in parts(recipe, step=0)]
    [('task', 1, 128), ('rehearsal', 1, 128)]
    """
    rng = np.random.default_rng([recipe.seed, step, process])
    fmt = parse_format(recipe.format)

    def length(longest: int, ramp: int, shortest: int = 1) -> int:
        first_top = min(max(2, shortest), longest)
        top = first_top + (longest - first_top) * step / max(1, ramp)
        return int(rng.integers(shortest, min(longest, int(top)) + 1))

    def size_and_seed(positions: int, share: float) -> tuple[int, int]:
        seed = int(rng.integers(2**63)) % 2**32
        # Many tiny prompts cost more overhead than they teach; few long ones make noisy gradients.
        return min(128, max(8, int(recipe.tokens * share / positions))), seed

    n: int | tuple[int, int] = length(recipe.longest, recipe.ramp, recipe.shortest)
    if fmt.task == "addition":
        n = (n, length(recipe.longest, recipe.ramp, recipe.shortest))
    size, seed = size_and_seed(sequence_length(fmt, n), 1 - recipe.rehearsal)
    step_parts = [TrainingPart("task", sample(fmt, size, n, seed, vocabulary), 1 - recipe.rehearsal)]
    if recipe.rehearsal:
        # Drawn for every condition, so that conditions differ in nothing else.
        order = SHUFFLED if rng.random() < 0.5 else ORDERED
        m, condition = length(recipe.rehearsal_longest, recipe.rehearsal_ramp), recipe.condition or USUAL
        order = order if order in orders(condition, fmt) else ORDERED
        size, seed = size_and_seed(positions_of(condition, order, m), recipe.rehearsal)
        batch = rehearse(condition, fmt, order, size, m, seed, vocabulary or default_vocabulary())
        step_parts.append(TrainingPart("rehearsal", batch, recipe.rehearsal))
    return step_parts
