"""Largest identity intervention: reassign all labels, and measure the largest change of any margin.

A specific arm such as M1 tests one way of addressing. This arm tests whether the identity of labels matters at all:
its effect is zero in every model that does not use identity (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.tasks import LABEL_ROLES, Batch, Role, parity
from interp.tasks.layout import generator
from probes import keys
from probes.arms.readings import Readings, effect_of_strongest, halves, largest_evidence, margins_after
from probes.evidence import ORDER_BROKEN, ORDER_KEPT, Evidence
from probes.intervals import ratio

INPUTS, OUTPUTS, BOTH = (Role.INPUT_LABEL,), (Role.OUTPUT_LABEL,), LABEL_ROLES
SHIFTS = {"shift by 1": 1, "shift by -1": -1, "shift by 2": 2}
# The reassignments of each side. With a consistent renaming of both sides, which changes nothing, a reassignment of
# the output is the inverse one of the input; so the output side has fewer, and both sides unlike are not needed.
# Other labels in the place of a side's own leave it without a match: all else keeps the set of labels as it is.
OTHER_LABELS = "other labels"
FAMILY = {
    INPUTS: (*SHIFTS, "reversal", "permutation", OTHER_LABELS),
    OUTPUTS: ("shift by 1", "permutation", OTHER_LABELS),
}
CONTROLS = ("shift by 1", "permutation")
# Moves every second input label to the place where this shift moves it too.
EVERY_SECOND, SAME_PLACES = "every second label", "shift by 2"
QUESTION = "all labels are reassigned, all steps are read: how much of the margin does identity move at most?"
REST = "the same, at steps where the step's own label leads to the same bit and state: does identity move the margin?"
ONE_STEP = "the same, at the step where identity moves the margin most: how much does it move there?"
NEIGHBOURS = "every second input label moves alone, or all move: does it matter what stands beside a label?"
ADDRESS_REST = "the same, at steps where {labels} lead to one place with the same bit and state: does identity matter?"
# Fewest prompts with a step at which the labels lead to the same answer.
FEWEST = 8
# Other addresses are tested where identity moves more than this share, and M1's label predicts no difference.
UNEXPLAINED = 0.05


def measure_identity(model: PreTrainedModel, readings: Readings, seed: int) -> list[Evidence]:
    """Measure the largest identity intervention at one length, on all output steps, teacher forced.

    The value is the mean over prompts and steps of |change of the margin| over the full effect (of an edited input),
    for the strongest member of the family; "at one step" it is that of the step that moves most. An anchor by rho has
    about rho / 2 in parity, because half of the steps get the same bit. The control reassigns labels on both sides
    alike, which renames them and changes no address. A third piece reads only steps at which the step's own label
    still leads to the same bit and state (parity). A fourth compares two reassignments that move a label to the same
    place, alone or with the labels beside it: an address by two labels jointly follows only the latter. Where one of
    these two is not small, or the format declares another address, there is one more for each of `keys.ADDRESSES`: it
    reads steps at which the labels of that address lead to one place with the same bit and state. Of a piece that reads
    some steps only, the details have the share of each member: of shifts, which keep the order of labels, and of the
    others.
    """
    batch, half = readings.batch, halves(len(readings), seed)
    has_others = has_other_labels(batch)
    edits = {"edited": readings.edited} | {name: reassign(batch, BOTH, name, seed) for name in CONTROLS}
    for roles, names in FAMILY.items():
        side = "inputs" if roles == INPUTS else "outputs"
        for name in names if has_others else [name for name in names if name != OTHER_LABELS]:
            edits[f"{name}, {side}"] = reassign(batch, roles, name, seed)
    if batch.format.task == "parity":
        edits[EVERY_SECOND], moves = every_second_moved(batch, seed)
    (clean, likeliest), after = margins_after(model, readings, edits)
    full = readings.at_step(clean - after.pop("edited")[0])
    renamed = torch.stack([(clean - after.pop(name)[0]).abs() for name in CONTROLS])
    alone = after.pop(EVERY_SECOND, None)
    effects = {name: (clean - moved).abs() for name, (moved, _) in after.items()}
    changed = [(answers != likeliest).double().mean(dim=1) for _, answers in after.values()]
    batches = [edits[name] for name in after]
    control, _ = effect_of_strongest(renamed.mean(dim=2), full, half)
    by_step = torch.stack(list(effects.values()))
    value, chosen = effect_of_strongest(by_step.mean(dim=2), full, half)
    answers_changed = torch.stack(changed).gather(0, chosen.unsqueeze(0)).mean()
    details = {
        "answers changed": float(answers_changed),
        "strongest": sorted({list(effects)[k] for k in chosen.tolist()}),
        "family": {name: ratio(e.mean(dim=1), full).value for name, e in effects.items()},
    }

    at_step, chosen = effect_of_strongest(_steps_as_members(by_step), full, half)
    matched, _ = effect_of_strongest(_steps_as_members(renamed), full, half)
    steps = {"steps": sorted({1 + k % by_step.shape[2] for k in chosen.tolist()})}
    measured = [
        largest_evidence(keys.LARGEST_IDENTITY, QUESTION, readings, value, control, details),
        largest_evidence(keys.IDENTITY_STEP, ONE_STEP, readings, at_step, matched, steps),
    ]
    if alone is None:
        return measured

    def measure_rest(address: keys.Address, question: str) -> list[Evidence]:
        unchanged = torch.stack([lead_to_same(edited, address.offsets) for edited in batches])
        enough = unchanged.any(dim=2).sum(dim=1) >= FEWEST
        if not enough.any():
            return []
        moved = _mean_where(by_step[enough], unchanged[enough])
        rest, _ = effect_of_strongest(moved, full, half)
        tested = [name for name, is_enough in zip(effects, enough.tolist(), strict=True) if is_enough]
        by_order: dict[str, dict] = {ORDER_KEPT: {}, ORDER_BROKEN: {}}
        for name, each in zip(tested, moved, strict=True):
            by_order[ORDER_KEPT if name.split(",")[0] in SHIFTS else ORDER_BROKEN][name] = ratio(each, full).to_json()
        return [largest_evidence(address.rest, question, readings, rest, control, by_order)]

    measured += measure_rest(keys.OWN, REST)
    if moves.any():
        apart = (after[f"{SAME_PLACES}, inputs"][0] - alone[0]).abs()
        value = ratio(_mean_where(apart.unsqueeze(0), moves.unsqueeze(0)).squeeze(0), full)
        measured.append(largest_evidence(keys.IDENTITY_NEIGHBOURS, NEIGHBOURS, readings, value, control))
    if batch.format.address not in (0, None) or is_unexplained(measured):
        for address in keys.ADDRESSES.values():
            if address is not keys.OWN:
                measured += measure_rest(address, ADDRESS_REST.format(labels=address.name))
    return measured


def is_unexplained(measured: Sequence[Evidence]) -> bool:
    """Return whether identity moves the margin, and also where the step's own label predicts no difference.

    That is a condition where it was measured. For neighbours, which trades then test, an estimate is enough.
    """
    of = {e.key: e.value for e in measured}
    rest, neighbours = of.get(keys.IDENTITY_REST), of.get(keys.IDENTITY_NEIGHBOURS)
    unexplained = [] if rest is None else [rest.low > UNEXPLAINED]
    unexplained += [] if neighbours is None else [neighbours.value > UNEXPLAINED]
    return of[keys.LARGEST_IDENTITY].low > UNEXPLAINED and (any(unexplained) or not unexplained)


def every_second_moved(batch: Batch, seed: int) -> tuple[Batch, Bool[Tensor, "batch n"]]:
    """Move every second input label by two steps, and say at which steps `SAME_PLACES` moves the own label alike.

    A random half of the prompts moves the labels of odd steps, the others those of even steps; the first of them goes
    to the place of the last.
    """
    at = batch.at(Role.INPUT_LABEL)
    step = torch.arange(len(at))
    start = (torch.randperm(len(batch), generator=generator(seed + len(EVERY_SECOND))) % 2).unsqueeze(1)
    mine = step % 2 == start
    following = torch.where(step + 2 < len(at), step + 2, start)
    edited = batch.tokens.clone()
    edited[:, at] = batch.tokens[:, at].gather(1, torch.where(mine, following, step))
    return batch.with_tokens(edited), mine & (step >= 2)


def reassign(batch: Batch, roles: tuple[Role, ...], name: str, seed: int) -> Batch:
    """Reassign all labels of one side or both by a member of the family; other tokens stay.

    Labels are numbered by their first position; those that only the output has are reassigned among themselves.
    Equal tokens of a prompt get equal new tokens, so that on both sides it is a renaming.
    """
    at = torch.isin(batch.role, torch.tensor(LABEL_ROLES)).nonzero().flatten()
    tokens = batch.tokens[0, at].tolist()
    first = {token: k for k, token in reversed(list(enumerate(tokens)))}
    distinct = sorted(first.values())
    number = torch.tensor([distinct.index(first[token]) for token in tokens])
    of_inputs = sum(int(batch.role[at[k]]) == Role.INPUT_LABEL for k in distinct)
    counts = [count for count in (of_inputs, len(distinct) - of_inputs) if count]
    gen = generator(seed + sum(map(ord, name)))
    orders = [_order(name, len(batch), count, gen) for count in counts]
    order = torch.cat([block + offset for block, offset in zip(orders, (0, of_inputs), strict=False)], dim=1)
    labels = batch.tokens[:, at[torch.tensor(distinct)]]
    labels = drawn_from_pool(batch, len(distinct), gen) if name == OTHER_LABELS else labels.gather(1, order)
    edited = batch.tokens.clone()
    edited[:, at] = labels.index_select(1, number)
    kept = ~torch.isin(batch.role, torch.tensor(roles))
    edited[:, kept] = batch.tokens[:, kept]
    return batch.with_tokens(edited)


def others_of(batch: Batch) -> Bool[Tensor, "batch label"]:
    """Return which labels of the pool each prompt does not contain."""
    pool = batch.vocabulary.pool
    allowed = torch.ones(len(batch), len(pool), dtype=torch.bool)
    for tokens in batch.tokens.unbind(dim=1):  # all positions at once would take their number times the memory
        allowed &= tokens.unsqueeze(1) != pool
    return allowed


def has_other_labels(batch: Batch) -> bool:
    """Return whether labels come from a pool, and each prompt lacks some of them."""
    return batch.format.labels == "pool" and bool(others_of(batch).any(dim=1).all())


def drawn_from_pool(batch: Batch, count: int, gen: torch.Generator) -> Int[Tensor, "batch {count}"]:
    """Return labels that each prompt does not contain, in random order, each twice only where too few are left."""
    allowed = others_of(batch)
    score = torch.rand(allowed.shape, generator=gen).masked_fill(~allowed, torch.inf)
    spare = allowed.sum(dim=1, keepdim=True)
    return batch.vocabulary.pool[score.argsort(dim=1).gather(1, torch.arange(count) % spare)]


def lead_to_same(batch: Batch, offsets: Sequence[int] = (0,)) -> Bool[Tensor, "batch n"]:
    """Return at which steps of parity the addressing labels lead to the step's bit and state, or to equal ones.

    `offsets`: of the labels that address a step, -1 for that of the step before. Each leads to the bit that is as far
    from the input label that it matches. Several count only where they lead to one bit, which lacks a label where the
    step does. A step without its one label reads no label, so it keeps its answer.
    """
    content = parity.read(batch)
    assert content.input_labels is not None
    assert content.output_labels is not None
    n = content.bits.shape[1]
    places, exist = [], []
    for offset in offsets:
        addressing = torch.arange(n) + offset
        labels = content.output_labels[:, addressing.clamp(0, n - 1)]
        match = labels.unsqueeze(2) == content.input_labels.unsqueeze(1)
        places.append(torch.where(match.any(dim=2), match.long().argmax(dim=2) - offset, -1))
        exist.append((addressing >= 0) & (addressing < n))
    place = places[0]
    for other, exists in zip(places[1:], exist[1:], strict=True):
        place = torch.where(exists, other, place)
    same = (place >= 0) & (place < n)
    for x in (content.bits, content.parities):
        same &= x.gather(1, place.clamp(0, n - 1)) == x
    if len(offsets) == 1:
        return same | ~exist[0]
    for offset, at, exists in zip(offsets, places, exist, strict=True):
        has_neighbour = (place + offset >= 0) & (place + offset < n)
        same &= torch.where(exists, at == place, ~has_neighbour)
    return same


def _order(name: str, prompts: int, count: int, gen: torch.Generator) -> Int[Tensor, "prompt label"]:
    """Return the number of the label that each label is replaced by."""
    number = torch.arange(count).expand(prompts, count)
    if name == "reversal":
        return count - 1 - number
    if name in SHIFTS:
        return (number + SHIFTS[name]) % count
    return torch.rand(prompts, count, generator=gen).argsort(dim=1)


def _steps_as_members(by_step: Float[Tensor, "member prompt n"]) -> Float[Tensor, "member_n prompt"]:
    """Return each step of each member as a member of its own."""
    return by_step.permute(0, 2, 1).flatten(0, 1)


def _mean_where(
    by_step: Float[Tensor, "member prompt n"], where: Bool[Tensor, "member prompt n"]
) -> Float[Tensor, "member prompt"]:
    """Return terms of each prompt whose mean over prompts is the mean over the chosen steps of all prompts."""
    share = where.double().mean(dim=(1, 2)).unsqueeze(1)
    return (by_step.double() * where).mean(dim=2) / share
