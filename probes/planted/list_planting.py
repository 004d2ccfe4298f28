"""Make a planted model that finds items of lists, and prove that it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp.forward import predict
from interp.tasks.layout import generator
from interp.tasks.lists import Lookups, sample_lists
from probes.planted.assembling import Frame, assemble
from probes.planted.codes import gap, label_codes, place_frequencies, rotary_frequencies
from probes.planted.dirtying import CLEAN_CONSTANT, centre_norms, disturb, loosest
from probes.planted.list_mechanisms import BEHIND, LIST_MECHANISMS, ListSetting
from probes.planted.list_symbols import OF_LIST_TOKENS, coded, list_embedding, list_tokenizer, list_unembedding
from probes.planted.plan import Dirt
from probes.planted.planting import ENOUGH

N_POSITIONS = 160
# Prompts per query that dirt must leave right, and their seed.
PROMPTS, SEED = 24, 2**20
# The largest mean error of margins after edits, in mean margins of the prompts as they are.
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
    dirt, lists = plan.dirt, _lists(plan)
    first = _compiled(replace(plan, dirt=Dirt()), lists, CLEAN_CONSTANT, 1.0)
    clean = None if dirt == Dirt() else [_margins(first.model, found) for found in lists]

    def solves(planted: PlantedList) -> bool:
        return _solves(planted.model, lists, clean)

    planted = _compiled(
        plan, lists, *loosest(dirt, lambda constant, kept: solves(_compiled(plan, lists, constant, kept)))
    )
    if dirt.noise:
        noise = disturb(planted.model, dirt.noise, plan.seed, lambda: solves(planted))
        planted = replace(planted, applied={**planted.applied, "noise": noise})
    assert solves(planted), f"{plan} does not find its items, or not as it should"
    return planted


def _lists(plan: ListPlan) -> list[Lookups]:
    """Return prompts that ask for the second item, one in the middle and the last but two."""
    queries = (2, plan.items // 2, plan.items - 2)
    return [sample_lists(list_tokenizer(), plan.task, PROMPTS, plan.items, q, SEED + q) for q in queries]


def _solves(model: PreTrainedModel, lists: Sequence[Lookups], clean: Sequence[Tensor] | None) -> bool:
    try:
        right = [_logits(model, found, found.prompts.tokens).argmax(-1) == found.answer(found.query) for found in lists]
        if torch.cat(right).float().mean() < ENOUGH:
            return False
        pairs = [] if clean is None else [(_margins(model, found), x) for found, x in zip(lists, clean, strict=True)]
        return all((now - before).abs().mean(dim=1).max() <= OFF_EDITED for now, before in pairs)
    except ValueError:  # logits that are not finite
        return False


def _logits(model: PreTrainedModel, found: Lookups, tokens: Tensor) -> Float[Tensor, "batch d_vocab"]:
    return predict(model, found.prompts.with_tokens(tokens), torch.tensor([found.prompts.n_pos]))[:, -1]


def _margins(model: PreTrainedModel, found: Lookups) -> Float[Tensor, "edit batch"]:
    """Return the lead of the answer over the last item's value, in mean leads of the prompts as they are.

    Before an edit, with the two items' labels traded, with the items traded, and with the item before the query
    replaced by that before the last. Noise that leaves answers right can still change what an edit does.
    """
    tokens, last = found.prompts.tokens, found.n_items
    own, other = (list(found.labels.get(i, ())) for i in (found.query, last))
    traded, moved, replaced = tokens.clone(), tokens.clone(), tokens.clone()
    traded[:, own + other] = tokens[:, other + own]
    here, there = [*own, found.values[found.query]], [*other, found.values[last]]
    moved[:, here + there] = tokens[:, there + here]
    before = found.query - 1
    replaced[:, found.query_values[before]] = tokens[:, found.values[last - 1]]
    if found.labels:
        replaced[:, list(found.query_labels[before])] = tokens[:, list(found.labels[last - 1])]
    rows = torch.arange(len(tokens))
    logits = [_logits(model, found, edited) for edited in (tokens, traded, moved, replaced)]
    answer, target = found.answer(found.query), found.answer(last)
    margins = torch.stack([x[rows, answer] - x[rows, target] for x in logits])
    return margins / margins[0].abs().mean()


@lru_cache(maxsize=8)
def _codes(seed: int) -> tuple[Tensor, Tensor]:
    gen = generator(seed)
    return label_codes(len(coded()), gen), place_frequencies(gen)


def _setting(plan: ListPlan, found: Lookups, codes: Tensor, frequencies: Tensor, sharp: float) -> ListSetting:
    item = found.values[2] - found.values[1]
    own = found.values[1] - found.labels[1][0] if found.labels else item
    of_gpt2 = plan.architecture == "gpt2"
    distances = frequencies if of_gpt2 else rotary_frequencies(plan.architecture)
    code_of = dict(zip(coded(), codes, strict=True))
    symbols = found.prompts.symbols()
    return ListSetting(
        plan.architecture,
        plan.share,
        sharp,
        frequencies,
        sharp / gap(distances),
        dict(zip(BEHIND, (own, item, item + own, 2 * item), strict=True)),
        found.prompts.n_pos - 1 - found.values[found.query],
        tuple((code_of[symbols[at[0]].strip()], found.values[i] if of_gpt2 else i) for i, at in found.labels.items()),
    )


def _compiled(plan: ListPlan, lists: Sequence[Lookups], constant: float, kept: float) -> PlantedList:
    codes, frequencies = _codes(plan.seed)
    gen = generator((plan.seed + 2**31) % 2**32)
    sharpness, margin = 40 + 20 * torch.rand(2, generator=gen).double()
    circuit = LIST_MECHANISMS[plan.mechanism].build(_setting(plan, lists[0], codes, frequencies, float(sharpness)))
    model, _ = assemble(
        circuit,
        Frame(plan.architecture, N_POSITIONS, frequencies, plan.dirt, kept, constant),
        OF_LIST_TOKENS,
        lambda slices, size: list_embedding(slices, size, codes),
        lambda slices, size: list_unembedding(circuit.routes, slices, size, codes, float(margin) / 5),
        gen,
    )
    centre_norms(model, lambda: _logits(model, lists[1], lists[1].prompts.tokens))
    return PlantedList(plan, model, list_tokenizer(), {"noise": 0.0, "kept": kept, "constant": constant})
