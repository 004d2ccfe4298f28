"""The model before the first step, and what has been learned so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.support.same_name import say_which
from experiments.training.gradients import predicted
from experiments.training.lora import add_adapters
from experiments.training.recipe import Pretrained, Recipe
from experiments.training.rehearsal import SHUFFLED, USUAL, orders, rehearse
from interp.forward import correct
from interp.models import build_model, load_run, load_tokenizer
from interp.models.names import source_of
from interp.tasks import Batch, Vocabulary, default_tokenizer, default_vocabulary, parse_format, sample
from interp.tasks.format_table import RECALL_START
from probes.competence import modes_of, steps_right
from probes.findings import MARGINS

CHECK_PROMPTS = 64
CHECK_SEED = 0


@dataclass(frozen=True)
class Beginning:
    """The model before the first step, its tokenizer, the tokens of the task's symbols, and the adapters' settings."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    # None where all weights are trained.
    adapter: dict | None = None


def beginning(recipe: Recipe) -> Beginning:
    """Return what training starts from.

    Raises `ValueError` for a pretrained model whose tokens or positions do not take the recipe's lengths.
    """
    if not isinstance(recipe.model, Pretrained):
        vocabulary = default_vocabulary()
        model = build_model(recipe.model, len(vocabulary.ids), recipe.seed)
        return Beginning(model, default_tokenizer(), vocabulary)
    say_which(recipe.model.source)
    source = source_of(recipe.model.source)
    run = load_run(source, recipe.format)
    if recipe.rehearsal and RECALL_START not in run.vocabulary.ids:
        raise ValueError(f"rehearsal needs symbols that {run.name} has no tokens for; leave it at 0")
    run.check_length(recipe.longest)
    model = (_drawn_anew(run.raw, recipe.seed) if recipe.model.scratch else run.raw).float().train()
    rank = recipe.model.lora
    model.requires_grad_(not rank)
    adapter = add_adapters(model, rank, recipe.seed) if rank else None
    return Beginning(model, load_tokenizer(source), run.vocabulary, adapter)


def _drawn_anew(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a model of the same configuration with the initial weights of its architecture, drawn from a seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return type(model)(model.config)


def check_batches(recipe: Recipe, vocabulary: Vocabulary) -> dict[str, Batch]:
    """Return the prompts, of the longest trained lengths, whose accuracy starts the cool-down."""
    checks = {"task": sample(recipe.format, CHECK_PROMPTS, recipe.longest, CHECK_SEED, vocabulary)}
    if recipe.rehearsal:
        fmt, condition = parse_format(recipe.format), recipe.condition or USUAL
        for order in orders(condition, fmt):
            name = "rehearsal" if order == SHUFFLED else "rehearsal_ordered"
            longest = recipe.rehearsal_longest
            checks[name] = rehearse(condition, fmt, order, CHECK_PROMPTS, longest, CHECK_SEED, vocabulary)
    return checks


def accuracies_of(model: Any, checks: dict[str, Batch]) -> dict[str, float]:
    """Return the teacher-forced share of predicted tokens that are right, for each of the checks.

    The raw model runs, in the precision that it trains in.
    """
    model.eval()
    rights = {name: correct(model, b, predicted(b), by_steps=False) for name, b in checks.items()}
    accuracies = {name: float(right.float().mean()) for name, right in rights.items()}
    model.train()
    return accuracies


def outcome_of(model: Any, check: Batch, accuracy: dict[str, float], steps: int) -> dict:
    """Return what was learned. `accuracy` counts predicted tokens, labels included; a step needs all of its tokens."""
    model.eval()
    step_accuracy = float(steps_right(model, check, modes_of(check)[-1]).float().mean())
    competent = step_accuracy >= MARGINS.competence
    return {"competent": competent, "step_accuracy": step_accuracy, "steps": steps, "token_accuracy": accuracy}
