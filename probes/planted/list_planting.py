"""Make a planted model that finds items of lists, and prove that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp.forward import predict
from interp.tasks.layout import generator
from probes.binding.edits import ARMS, Absent, edit_of
from probes.binding.trials import Trial, trials_of
from probes.planted.backends import GROUP, empty_model, norms_of, write_weights
from probes.planted.basis import build_basis, slices_of, width
from probes.planted.codes import gap, head_layout, label_codes, place_frequencies, rotary_frequencies
from probes.planted.compiling import Space, code_dimensions, compile_layers
from probes.planted.dirtying import disturb, listening
from probes.planted.list_mechanisms import BEHIND, LIST_MECHANISMS, ListSetting
from probes.planted.list_symbols import (
    OF_LIST_TOKENS,
    coded,
    list_embedding,
    list_ids,
    list_tokenizer,
    list_unembedding,
)
from probes.planted.parts import features_of
from probes.planted.plan import Dirt
from probes.planted.planting import CLEAN_CONSTANT, ENOUGH, FEATURE_LENGTH, KEPT, LOOSE_CONSTANTS
from probes.planted.symbols import positions

N_POSITIONS = 160
# Prompts that dirt must leave right.
PROMPTS = 64
# The largest mean error of margins under the arms' edits, in mean margins of the prompts as they are.
OFF_EDITED = 0.1


@dataclass(frozen=True)
class ListPlan:
    """Everything that determines a planted model of a list."""

    mechanism: str
    architecture: str
    task: str = "list-letters"
    items: int = 6
    share: float = 1.0
    dirt: Dirt = field(default_factory=Dirt)
    seed: int = 0

    def to_json(self) -> dict:
        """Return a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class PlantedList:
    """A model of known mechanism that finds items of lists; `applied` as in `Planted`."""

    plan: ListPlan
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    applied: dict[str, float]


def plant_list(plan: ListPlan) -> PlantedList:
    """Make the model of a plan, in float32 and evaluation mode. The same plan gives the same weights."""
    dirt, trials = plan.dirt, trials_of(list_tokenizer(), plan.task, plan.items, PROMPTS, 2**20)
    first = _compiled(replace(plan, dirt=Dirt()), trials, CLEAN_CONSTANT, 1.0)
    clean = None if dirt == Dirt() else _margins(first.model, trials)

    def solves(planted: PlantedList) -> bool:
        return _solves(planted.model, trials, clean)

    kept, constant = 1.0, CLEAN_CONSTANT
    if dirt.superposition:
        kept = next((k for k in KEPT if solves(_compiled(plan, trials, CLEAN_CONSTANT, k))), 1.0)
    if dirt.layernorm:
        constant = next((c for c in LOOSE_CONSTANTS if solves(_compiled(plan, trials, c, kept))), CLEAN_CONSTANT)
    planted = _compiled(plan, trials, constant, kept)
    if dirt.noise:
        noise = disturb(planted.model, dirt.noise, plan.seed, lambda: solves(planted))
        planted = replace(planted, applied={**planted.applied, "noise": noise})
    assert solves(planted), f"{plan} does not find its items, or not as it should"
    return planted


def accuracy_on(model: PreTrainedModel, trials: Sequence[Trial]) -> float:
    """Return the share of prompts in which the value asked for is the most likely token."""
    right = []
    for trial in trials:
        prompts = trial.lookups.prompts
        logits = predict(model, prompts, torch.tensor([prompts.n_pos]))[:, -1]
        right.append(logits.argmax(dim=-1).cpu() == trial.lookups.answer(trial.query).cpu())
    return float(torch.cat(right).float().mean())


def _solves(model: PreTrainedModel, trials: Sequence[Trial], clean: Sequence[Tensor] | None) -> bool:
    try:
        if accuracy_on(model, trials) < ENOUGH:
            return False
        if clean is None:
            return True
        pairs = zip(_margins(model, trials), clean, strict=True)
        return all((now - before).abs().mean(dim=1).max() <= OFF_EDITED for now, before in pairs)
    except ValueError:  # logits that are not finite
        return False


def _margins(model: PreTrainedModel, trials: Sequence[Trial]) -> list[Float[Tensor, "edit prompt"]]:
    """Return, by trial, the lead of the answer over the target's value, as it is and under each arm's edit.

    In mean leads without an edit. Noise that leaves answers right can still change what an edit does.
    """
    by_trial = []
    for trial in trials:
        prompts, found = trial.lookups.prompts, trial.lookups
        rows = torch.arange(len(prompts))
        margins = []
        for tokens in (prompts.tokens, *_edits(trial)):
            logits = predict(model, prompts.with_tokens(tokens), torch.tensor([prompts.n_pos]))[:, -1]
            margins.append(logits[rows, found.answer(trial.query)] - logits[rows, found.answer(trial.target)])
        whole = torch.stack(margins)
        by_trial.append(whole / whole[0].abs().mean())
    return by_trial


def _edits(trial: Trial) -> list[Tensor]:
    edits: list[Tensor] = []
    for arm in ARMS:
        try:
            edit = edit_of(trial, arm)
        except Absent:
            continue
        edits.append(edit.tokens)
    return edits


@lru_cache(maxsize=8)
def _codes(seed: int) -> tuple[Tensor, Tensor]:
    gen = generator(seed)
    return label_codes(len(coded()), gen), place_frequencies(gen)


def _setting(plan: ListPlan, trials: Sequence[Trial], codes: Tensor, frequencies: Tensor, sharp: float) -> ListSetting:
    found = trials[0].lookups
    item = found.values[2] - found.values[1]
    own = found.values[1] - found.labels[1][0] if found.labels else item
    behind = {"own label": own, "value before": item, "label before": item + own}
    behind |= {"value two before": 2 * item}
    of_gpt2 = plan.architecture == "gpt2"
    distances = frequencies if of_gpt2 else rotary_frequencies(plan.architecture)
    code_of = dict(zip(coded(), codes, strict=True))
    symbols = found.prompts.symbols()
    indexed = tuple(
        (code_of[symbols[at[0]].strip()], found.values[i] if of_gpt2 else i) for i, at in found.labels.items()
    )
    assert set(behind) == set(BEHIND)
    return ListSetting(
        plan.architecture,
        plan.share,
        sharp,
        frequencies,
        sharp / gap(distances),
        behind,
        found.prompts.n_pos - 1 - found.values[trials[0].query],
        indexed,
    )


def _compiled(plan: ListPlan, trials: Sequence[Trial], constant: float, kept: float) -> PlantedList:
    codes, frequencies = _codes(plan.seed)
    gen = generator((plan.seed + 2**31) % 2**32)
    sharpness, margin = 40 + 20 * torch.rand(2, generator=gen).double()
    setting = _setting(plan, trials, codes, frequencies, float(sharpness))
    circuit = LIST_MECHANISMS[plan.mechanism].build(setting)
    gpt2 = plan.architecture == "gpt2"
    names = features_of(circuit, positions=gpt2, tokens=OF_LIST_TOKENS)
    slices = slices_of(names)
    size = 1 + max(place.stop for place in slices.values())
    head = head_layout(plan.architecture, code_dimensions(circuit, learned_positions=gpt2))
    layers = compile_layers(circuit, Space(slices, size, frequencies, head))
    rotated = plan.dirt.rotation or plan.dirt.superposition
    centred = plan.architecture != "llama"
    needed = width(names, not rotated, kept, centred)
    most_heads = max(len(layer.heads) for layer in layers)
    if plan.architecture == "llama":
        d_model = -(-needed // (GROUP * most_heads)) * GROUP * most_heads
    else:
        d_model = max(most_heads, -(-needed // head.size)) * head.size
    basis = build_basis(names, d_model, constant * FEATURE_LENGTH, gen, rotated, kept, centred)
    model = empty_model(plan.architecture, layers, d_model, head.size, len(list_ids()), N_POSITIONS)
    write_weights(
        model,
        layers,
        basis,
        gen,
        list_embedding(slices, size, codes),
        positions(slices, size, N_POSITIONS, frequencies) if gpt2 else None,
        list_unembedding(circuit.routes, slices, size, codes, float(margin) / 5),
    )
    _centre(model, lambda: accuracy_on(model, trials[:1]))
    return PlantedList(plan, model, list_tokenizer(), {"noise": 0.0, "kept": kept, "constant": constant})


@torch.no_grad()
def _centre(model: PreTrainedModel, forward: Callable[[], object]) -> None:
    for norm in norms_of(model):
        with listening(norm) as seen:
            forward()
        length = torch.cat(seen).double().norm(dim=-1).mean()
        gain = norm.get_parameter("weight")
        gain.fill_(float(length) / gain.numel() ** 0.5)
