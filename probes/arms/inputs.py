"""The inputs of the arms at one length: the model, and prompts drawn for each purpose when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.models import Run
from interp.tasks import Batch
from probes.arms.m01_identity import full_effect
from probes.arms.m06_heads import SortedHeads, sort_heads
from probes.arms.m09_subspaces import Searches
from probes.arms.readings import Readings, readings_of
from probes.trials.addition import choose_sums
from probes.trials.parity import BOTH_DIFFER, OVERSAMPLE, Trials, choose, refuse_address

# Prompts of arms whose cost grows with heads or steps, and of the discovery of idle heads.
FEW = 24
# At least as many of the ordinary prompts serve an arm that reads half of them, and whose intervals must be narrow.
ENOUGH = 64
# Prompts of probes and of DAS, which learn, and the length at which DAS learns; it is tested at the battery's lengths.
SOME, MANY, DAS_LENGTH = 256, 900, 10
# Seeds of prompts differ by purpose. M6, presence, M10 and the largest interventions run on those of competence.
COMPETENCE, TRIALS, DISCOVERY, DESCRIPTION, PROBES, DAS, DAS_TEST, SHARES, DISCOVERY_KEYS, PRESENCE = range(10)


@dataclass(frozen=True, eq=False)
class ArmInputs:
    """What an arm may use at one length. `plain` are ordinary prompts, `prompts` the number of trials wanted.

    `report` is called with the name of a piece of work that is shared by several arms, as it starts. `searches` are
    those of M9, which all lengths share: DAS learns at `DAS_LENGTH`.
    """

    run: Run
    length: int | tuple[int, int]
    seed: int
    prompts: int
    plain: Batch
    report: Callable[[str], object] = lambda _: None
    searches: Searches = field(default_factory=dict)

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model."""
        return self.run.raw

    @property
    def no_address(self) -> str | None:
        """Why labels of this format cannot be addresses; None where they can."""
        return refuse_address(self.plain)

    def draw(self, size: int, purpose: int) -> Batch:
        """Draw prompts at this length with the seed of a purpose."""
        return draw(self.run, size, self.length, self.seed, purpose)

    @cached_property
    def trials(self) -> Trials:
        """The trials of M1 to M5. Raises `ValueError` where too few prompts have the steps that a trial needs."""
        return self._draw_trials(TRIALS)

    @cached_property
    def many_trials(self) -> Trials:
        """All trials of parity that the prompts of `trials` give, for arms that need a choice of them."""
        return choose(self.draw(self.prompts * OVERSAMPLE, TRIALS), self.seed)

    @cached_property
    def full(self) -> Float[Tensor, " batch"]:
        """The full effect of the trials, the denominator of M1 to M5."""
        return full_effect(self.model, self.trials)

    @cached_property
    def swap_trials(self) -> Trials:
        """Trials of the Shapley shares: half as many, in which a swap changes the answer by every answer map."""
        return self._draw_trials(SHARES, all_differ=True)

    @cached_property
    def readings(self) -> Readings:
        """What the largest interventions read: half of the ordinary prompts (addition: of the trials)."""
        readings = readings_of(self.trials, self.plain, self.seed)
        return readings.rows(slice(max(FEW, len(readings) // 2)))

    @cached_property
    def heads(self) -> SortedHeads:
        """The heads that carry nothing from labels, found on prompts that no arm uses."""
        self.report("which heads carry nothing from labels")
        return sort_heads(self.model, self.draw(FEW, DISCOVERY), self.draw(FEW, DISCOVERY_KEYS))

    @cached_property
    def few(self) -> Batch:
        """Prompts of the arms that describe."""
        return self.draw(FEW, DESCRIPTION)

    @cached_property
    def probe_prompts(self) -> Batch:
        """Prompts on which probes and erasers are fitted."""
        return self.draw(SOME, PROBES)

    @cached_property
    def das_prompts(self) -> tuple[Batch, Batch]:
        """Prompts on which DAS learns, at most 10 bits long, and prompts on which it is tested."""
        length = min(DAS_LENGTH, self.length) if isinstance(self.length, int) else DAS_LENGTH
        learn = self.run.sample(MANY, length, seed=1_000_000 * DAS + 1000 * self.seed)
        return learn, self.draw(SOME, DAS_TEST)

    def _draw_trials(self, purpose: int, all_differ: bool = False) -> Trials:
        size = self.prompts // 2 if all_differ else self.prompts
        if self.run.format.task == "addition":
            batch = self.draw(self.prompts, purpose)  # every prompt serves
            return choose_sums(batch, self.seed, size, **({"cells": (0,)} if all_differ else {}))
        batch = self.draw(self.prompts * OVERSAMPLE, purpose)
        return choose(batch, self.seed, size, **({"cells": (BOTH_DIFFER,)} if all_differ else {}))


def draw(run: Run, size: int, length: int | tuple[int, int], seed: int, purpose: int) -> Batch:
    """Draw `size` prompts of a run's format; prompts of different purposes have different seeds."""
    number = length if isinstance(length, int) else max(length)
    return run.sample(size, length, seed=1_000_000 * purpose + 1000 * seed + number)
