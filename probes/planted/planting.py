"""Make a planted model, prove that it solves its task, and save it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.forward import correct
from interp.models.folder import save_run
from interp.tasks import Batch, Role, Vocabulary, counterfactual, sample
from interp.tasks.layout import generator
from probes.planted.assembling import Frame, assemble
from probes.planted.backends import norms_of
from probes.planted.codes import label_codes, place_frequencies
from probes.planted.dirtying import (
    CLEAN_CONSTANT,
    OFF_TRADED,
    centre_norms,
    disturb,
    listening,
    loosest,
    margins_traded,
    shares_hold,
)
from probes.planted.families import FAMILIES
from probes.planted.mechanisms import BUILDERS, OUTSIDE_BUILDERS
from probes.planted.parts import OF_TOKENS
from probes.planted.pieces import Setting
from probes.planted.plan import SHORTEST, Dirt, Plan, Truth, truth_of
from probes.planted.symbols import (
    embedding,
    label_tokens,
    planted_tokenizer,
    planted_vocabulary,
    unembedding,
)

# The least accuracy with dirt, on a sample and on a four times larger one; both are above the .98 that holds over all
# prompts.
ENOUGH, ENOUGH_OF_MANY = 0.99, 0.995
SIDES = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)


@dataclass(frozen=True, eq=False)
class Planted:
    """A model of known mechanism.

    `format`: the format that it solves. `written`: the model writes its output labels; otherwise they must be given.
    `applied`: the dirt after reduction: "noise" (mean over tensors), "kept" (share of dimensions under superposition)
    and "constant" (the length of the constant that fixes the norm's scale, in lengths of a usual residual).
    `directions`: the direction of each feature in the residual stream, `[dimension d_model]`, unit vectors.
    """

    plan: Plan
    truth: Truth
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    format: str
    written: bool
    applied: Mapping[str, float]
    directions: Mapping[str, Float[Tensor, "dimension d_model"]]


def plant(plan: Plan) -> Planted:
    """Make the model of a plan, in float32 and evaluation mode. The same plan gives the same weights.

    >>> plant(Plan("A1", "gpt2", longest=12)).truth.label
    'anchor'
    """
    dirt = plan.dirt
    clean = None
    if plan.mechanism in FAMILIES and dirt != Dirt():
        first = _compiled(replace(plan, dirt=Dirt()), CLEAN_CONSTANT, 1.0)
        clean = margins_traded(first.model, _traded_prompts(first.format, plan.longest))
    planted = _compiled(plan, *loosest(dirt, lambda constant, kept: _solves(_compiled(plan, constant, kept), clean)))
    if dirt.noise:
        noise = disturb(planted.model, dirt.noise, plan.seed, lambda: _solves(planted, clean))
        planted = replace(planted, applied={**planted.applied, "noise": noise})
    assert _solves(planted, clean), f"{plan} does not solve its task, or not as it should"
    return planted


def prove(planted: Planted, prompts: int = 64, seed: int = 0) -> dict[int, float]:
    """Return step accuracy, teacher forced, at the shortest, the middle and the longest length.

    Where the model writes its labels, they count as steps too.
    """
    longest = planted.plan.longest
    lengths = sorted({SHORTEST, (SHORTEST + longest) // 2, longest})
    batches = {length: sample(planted.format, prompts, length, seed, planted.vocabulary) for length in lengths}
    return {length: _accuracy(planted, batch) for length, batch in batches.items()}


def save_planted(planted: Planted, folder: str | Path) -> None:
    """Write an ordinary run, without information about the mechanism."""
    record = {"format": planted.format, "vocabulary": planted.vocabulary.to_json()}
    save_run(Path(folder), planted.model, planted.tokenizer, record)


def _solves(planted: Planted, clean: Tensor | None = None) -> bool:
    """Return whether the accuracy is high enough at every length and the truth holds; the longest is tested first.

    `clean`: the margins after trades of labels in the model without dirt, which this one must share (families). Dirt is
    raised until this fails, so what passes narrowly on few prompts would fail on others: with `clean` they are more.
    """
    plan, vocabulary = planted.plan, planted.vocabulary
    routes = [planted.directions[name][0] for name in ("answer", "second answer") if name in planted.directions]
    prompts, enough = (48, ENOUGH) if clean is None else (192, ENOUGH_OF_MANY)
    try:
        for length in sorted({SHORTEST, (SHORTEST + plan.longest) // 2, plan.longest}, reverse=True):
            # The same number of steps at each length; `prove` draws other prompts.
            batch = sample(planted.format, prompts * plan.longest // length, length, 2**31, vocabulary)
            with listening(norms_of(planted.model)[-1]) as seen:
                if _accuracy(planted, batch) < enough:
                    return False
            if len(routes) == 2 and not shares_hold(torch.cat(seen), batch, routes, plan.share):
                return False
        if plan.mechanism == "A1-backup":  # where no label matches, only the backup answers
            return _accuracy(planted, sample("parity-nonaligned", 64, plan.longest, 2**31, vocabulary)) >= ENOUGH
        if clean is not None:
            margins = margins_traded(planted.model, _traded_prompts(planted.format, plan.longest))
            return float((margins - clean).abs().mean(dim=(1, 2)).max()) <= OFF_TRADED
        return True
    except ValueError:  # logits that are not finite
        return False


@lru_cache(maxsize=4)
def _traded_prompts(fmt: str, length: int) -> tuple[Batch, ...]:
    """Return prompts as they are, and with two steps' labels traded: in the input, and in the output."""
    gen = generator(2**31 + 1)
    batch = sample(fmt, 96, length, 2**31 + 1, planted_vocabulary())
    step, partner = (1 + torch.rand(len(batch), length, generator=gen).argsort(dim=1)[:, :2]).unbind(dim=1)
    return (batch, *(counterfactual.swap_labels(batch, step, partner, role) for role in SIDES))


def _accuracy(planted: Planted, batch: Batch) -> float:
    forced = not planted.written or not batch.format.model_can_write_labels
    return float(correct(planted.model, batch, batch.predicted(forced)).float().mean())


@lru_cache(maxsize=8)
def _codes(seed: int) -> tuple[Tensor, Tensor]:
    gen = generator(seed)
    return label_codes(len(label_tokens()), gen), place_frequencies(gen)


def _compiled(plan: Plan, constant: float, kept: float) -> Planted:
    codes, frequencies = _codes(plan.seed)
    gen = generator((plan.seed + 2**31) % 2**32)
    sharpness, margin = 40 + 20 * torch.rand(2, generator=gen).double()
    setting = Setting(plan.architecture, plan.longest, plan.share, frequencies, float(sharpness))
    families = {name: family.build for name, family in FAMILIES.items()}
    circuit = {**BUILDERS, **families, **OUTSIDE_BUILDERS}[plan.mechanism](setting)
    vocabulary = planted_vocabulary()
    model, basis = assemble(
        circuit,
        Frame(plan.architecture, 4 * plan.longest + 2, frequencies, plan.dirt, kept, constant),
        OF_TOKENS,
        lambda slices, size: embedding(slices, size, codes),
        lambda slices, size: unembedding(circuit, slices, size, codes, float(margin) / 5),
        gen,
    )
    applied = {"noise": 0.0, "kept": kept, "constant": constant}
    planted = Planted(
        plan=plan,
        truth=truth_of(plan),
        model=model,
        tokenizer=planted_tokenizer(),
        vocabulary=vocabulary,
        format=circuit.format,
        written=circuit.writes_labels,
        applied=applied,
        directions={name: basis.write[place].float() for name, place in basis.slices.items()},
    )
    batch = sample(circuit.format, 8, plan.longest, plan.seed, vocabulary)
    centre_norms(model, lambda: correct(model, batch, batch.predicted()))
    return planted
