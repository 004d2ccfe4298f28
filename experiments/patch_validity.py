"""Whether the prompts of `mnemoscope patch` can show an effect: the model does the task, and the pairs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from experiments.patch_inputs import with_steps
from interp.circuits.validity import Validity, validity_of_values

if TYPE_CHECKING:
    from experiments.commands.patch import PatchCommand
    from interp.models import Run
    from interp.patching import Sweep
    from interp.tasks import Batch, Prompts


def validity_of_sweep(run: Run, options: PatchCommand, sweep: Sweep) -> Validity | None:
    """Measure the model on the unpatched prompts of a sweep. Results of an invalid one have nothing to explain.

    A task is invalid where the answers at --step are not more often right than by chance, whatever the corruption
    changes. Text is invalid where the mean of the metric over clean prompts is not above that over corrupted ones.
    None for the metric kl on text, which has no answer.
    """
    base, source = sweep.baselines
    denoises = options.direction == "denoise"
    clean, corrupted = (source, base) if denoises else (base, source)
    if not options.is_text:
        prompts: Prompts = sweep.source if denoises else sweep.base
        step = with_steps(options).step
        assert step is not None
        outputs = prompts.format.outputs  # type: ignore[attr-defined]  # prompts of a task are a batch
        right = answers_right(run, prompts, step)  # type: ignore[arg-type]
        return validity_of_values(clean, corrupted, right, 1 / len(outputs), separated="any")
    if options.metric == "kl":
        return None
    return validity_of_values(clean, corrupted, separated="mean")


def answers_right(run: Run, batch: Batch, step: int) -> Tensor:
    """Return whether the answer at a step is the most likely one of the task's answers, as `[batch]` of 0 and 1."""
    from interp.forward import readout
    from interp.tasks import Role

    at = batch.at(Role.OUTPUT, step)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    likeliest = symbols[readout(run.raw, batch, at).logits.argmax(dim=-1)]
    return (likeliest == batch.tokens[:, at]).all(dim=-1).double()
