"""Which few directions carry the pointer, or the state, and does anything read them? (M9 of science 2.1)

DAS learns directions whose interchange gives the answers of a causal model with one variable changed. It finds some
anywhere if it may (Arora et al. 2024; Makelov et al. 2311.17030), so what counts is held-out prompts and lengths,
controls trained alike, and the effect of the part that downstream weights read.
For parity alone: `probes.batteries` leaves it out for addition, and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.das import (
    Basis,
    Joined,
    Pairs,
    arbitrary_targets,
    everything,
    fit,
    join,
    random_directions,
    swapped_answers,
    untrained,
)
from interp.models.bridge import raw_of
from interp.rowspace import part_of, read_directions
from interp.tasks import Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes.evidence import PROMPTS, Evidence, Interval
from probes.intervals import LEVEL, wilson

Variable = Literal["pointer", "state"]
VARIABLES: tuple[Variable, ...] = get_args(Variable)
RANKS = (1, 4, 16)
SHORTEST = 4
INPUT_SIDE = (Role.INPUT, Role.INPUT_LABEL)
FEWEST = 32
# Share of training pairs that ends a search.
SUCCESS = 0.97
# Effects of whole residuals that differ by less are alike.
NEARLY = 0.1


@dataclass(frozen=True)
class Site:
    """The residual before a layer, at a role's position `shift` steps after the step that is answered."""

    layer: int
    role: Role
    shift: int = 0

    def __str__(self) -> str:
        step = f"i{self.shift:+d}" if self.shift else "i"
        return f"resid_pre {self.layer} at {self.role.words} {step}"


@dataclass(frozen=True)
class Swapped:
    """How answers take an interchange, where they should change and where they should not.

    `follows` is IIA: how often the answer is the counterfactual one, over pairs where that is another answer;
    `keeps` how often it stays, over the others. `effect` is follows + keeps - 1: 0 for an interchange that does
    nothing and for one that scrambles, 1 for one that moves this variable alone.
    """

    follows: Interval
    keeps: Interval
    effect: Interval


@dataclass(frozen=True)
class Subspace:
    """What DAS found at a site with so many directions, and everything that must stand beside it.

    `held_out` and `longer` are other prompts, at the length of the search and at another. `whole` interchanges
    all of the residual. `placebo` moves as far in as many random directions; `untrained` is the same search on a
    model of random weights. `fitted` and `arbitrary` are shares of training pairs whose target is reached, for the
    causal model's targets and for arbitrary ones: what expressivity alone can fit. `read` and `unread` interchange
    only the part of the directions that downstream weights read, or only the rest (`unread_part` is its share of
    the directions' squared length): an effect that `read` alone does not have is an illusion. `answers` is how
    often the base prompts are answered right; where that is low the rest says little. `rival` scores the same
    answers by a matched control variable: the pointer to a step that nobody named, the parity of a random subset of
    the history. What merely makes the model read some other slot has as much effect there. `untrained` and `arbitrary`
    are None where they were not asked for, and for all but the largest rank.
    """

    variable: Variable
    site: str
    rank: int
    length: int
    longer_length: int | None
    answers: float
    held_out: Swapped
    longer: Swapped | None
    whole: Swapped
    placebo: Swapped
    untrained: Swapped | None
    fitted: float
    arbitrary: float | None
    read: Swapped
    unread: Swapped
    unread_part: float
    rival: Swapped
    n: int
    unit: str = PROMPTS

    def to_json(self) -> dict:
        """A nested plain dictionary."""
        return asdict(self)


def find_subspaces(
    model: PreTrainedModel,
    variable: Variable,
    site: Site,
    batch: Batch,
    longer: Batch | None = None,
    ranks: Sequence[int] = RANKS,
    seed: int = 0,
    epochs: int = 20,
    attempts: int = 2,
    controls: bool = True,
    read_by: Sequence[tuple[int, int]] | None = None,
    readers: Sequence[str] = ("q", "k", "v"),
    level: float = LEVEL,
) -> list[Subspace]:
    """DAS with each number of directions, searched on two thirds of `batch` and tried on the rest and on `longer`.

    What reads is by default every head and MLP from the layer on, and at the answer its logits. In a trained model
    these together read every direction: `read_by` narrows them to the `readers` (q, k, v) of (layer, head) pairs, and
    only that says anything there. The two trained controls have the largest number of
    directions alone, which can fit the most; `controls=False` leaves them out. A thousand prompts or more are
    wanted: with few, DAS learns the prompts. At a site of several places (the pointer on the input side) directions
    live in all places together. Raises `ValueError` as `pairs_for`, and for a layer or rank that is not there.

    >>> site = Site(1, Role.OUTPUT_LABEL)
    >>> found = find_subspaces(run.raw, "pointer", site, run.sample(1500, 10, 0), run.sample(200, 20, 1))
    >>> print(found[-1].held_out.effect)
    """
    raw = raw_of(model)
    pairs, rivals = _pairs_and_rivals(variable, batch, site, seed)
    if not ranks or attempts < 1:
        raise ValueError(f"give one rank or more, and one attempt or more; got {list(ranks)}, {attempts}")
    if len(pairs) < FEWEST:
        raise ValueError(f"a search needs {FEWEST} prompts or more; got {len(pairs)}")
    cut = 2 * len(pairs) // 3
    train, test = (pairs.rows(rows) for rows in (torch.arange(cut), torch.arange(cut, len(pairs))))
    fits, tries = join(raw, site.layer, train), join(raw, site.layer, test)
    far = None if longer is None else join(raw, site.layer, pairs_for(variable, longer, site, seed))
    bare = untrained(raw, seed)
    at_answer = bool((pairs.site == pairs.answer.unsqueeze(1) - 1).all())
    if read_by is None:
        layers = range(site.layer, raw.config.num_hidden_layers)
        reads = read_directions(raw, layers, answers=pairs.symbols if at_answer else None)
    else:
        reads = read_directions(raw, sorted({layer for layer, _ in read_by}), readers, read_by)
    answers = float((swapped_answers(tries, None).argmax(dim=1) == _own(test)).double().mean())
    whole = _swapped(tries, everything(tries), level)
    arbitrary = arbitrary_targets(train, seed)
    found = []
    for rank in ranks:
        basis, fitted = _search(fits, rank, train.target, seed, epochs, attempts)
        part, rest = part_of(basis, reads, inside=True), part_of(basis, reads, inside=False)
        fresh = reached = None
        if controls and rank == max(ranks):
            _, reached = _search(fits, rank, arbitrary, seed, epochs, attempts)
            of_bare, _ = _search(join(bare, site.layer, train), rank, train.target, seed, epochs, attempts)
            fresh = _swapped(join(bare, site.layer, test), of_bare, level)
        found.append(
            Subspace(
                variable,
                str(site),
                rank,
                _length(batch),
                None if longer is None else _length(longer),
                answers,
                _swapped(tries, basis, level),
                None if far is None else _swapped(far, basis, level),
                whole,
                _swapped(tries, basis, level, random_directions(tries, rank, seed + 1)),
                fresh,
                fitted,
                reached,
                _swapped(tries, part, level),
                _swapped(tries, rest, level),
                _unread_part(basis, reads),
                _swapped(tries, basis, level, target=rivals[cut:]),
                len(test),
            )
        )
    return found


def search_labels(
    model: PreTrainedModel, learnt: Batch, tried: Batch, seed: int, pointer: bool = True
) -> list[Evidence]:
    """M9 on one length: the pointer at the output label and the state at the input label, learnt on other prompts.

    Each is sought with the largest of `RANKS`, with trained controls, before the last layer at which interchanging
    the whole residual does nearly as much as anywhere, and tried on `tried`, at the length in question. Value:
    follows + keeps - 1 there, control: the matched rival variable. `pointer=False` where labels repeat. Where the
    whole residual moves nothing, the trained controls are left out: they are there to discount an effect.
    """
    raw = raw_of(model)
    rank = min(RANKS[-1], raw.config.hidden_size)
    wanted: dict[Variable, Role] = {"pointer": Role.OUTPUT_LABEL} if pointer else {}
    wanted["state"] = Role.INPUT_LABEL
    found = []
    for variable, role in wanted.items():
        sites = [Site(layer, role) for layer in range(raw.config.num_hidden_layers)]
        whole = []
        for site in sites:
            joined = join(raw, site.layer, pairs_for(variable, tried, site, seed))
            whole.append(_swapped(joined, everything(joined), LEVEL).effect.value)
        site = [s for s, effect in zip(sites, whole, strict=True) if effect >= max(whole) - NEARLY][-1]
        (s,) = find_subspaces(
            raw, variable, site, learnt, tried, [rank], seed, attempts=1, controls=max(whole) > NEARLY
        )
        assert s.longer is not None
        parts = {name: getattr(s, name) for name in ("held_out", "whole", "placebo", "untrained", "read", "unread")}
        details = {name: part and part.effect.value for name, part in parts.items()}
        details |= {
            "rank": s.rank,
            "learnt at length": s.length,
            "fitted": s.fitted,
            "arbitrary targets": s.arbitrary,
            "whole residual by layer": whole,
        }
        question = f"do few directions carry the {variable}? DAS at {s.site}"
        found.append(
            Evidence(
                "M9",
                f"{variable} subspace",
                question,
                _length(tried),
                "follows + keeps - 1",
                s.longer.effect,
                s.rival.effect,
                s.n,
                details=details,
            )
        )
    return found


def pairs_for(variable: Variable, batch: Batch, site: Site, seed: int) -> Pairs:
    """Pairs for interchange at a random step i of each prompt; the answer should change in about half of them.

    pointer: the source has other bits, and the labels of i and of a random j traded, on the side of the site's role (j
    after i on the output side);
    the base should answer p_(i-1) XOR b_j, of its own bits. Other bits keep a retrieved value from passing for a
    pointer. On the input side the site is at both i and j.
    state: the source has other bits before the site's step and the same written scratchpad; the answer should be
    the other one where their parity differs. Where it does not, history differs all the same.

    Raises `ValueError` for another variable, a format that is not parity with labels and steps, a pointer where
    labels repeat, too short a length, and a site that does not stand before the answer.
    """
    return _pairs_and_rivals(variable, batch, site, seed)[0]


def _pairs_and_rivals(variable: Variable, batch: Batch, site: Site, seed: int) -> tuple[Pairs, Int[Tensor, " pair"]]:
    """The pairs, and the targets that a matched control variable would give."""
    if variable not in VARIABLES:
        raise ValueError(f"variables are {', '.join(VARIABLES)}; got {variable!r}")
    if batch.format.task != "parity" or not batch.format.labels:
        raise ValueError(f"subspaces are sought in parity formats with labels; got {batch.format}")
    content = parity.read(batch)
    bits, n = content.bits, content.bits.shape[1]
    if n < SHORTEST:
        raise ValueError(f"a length of at least {SHORTEST} is needed; got {n}")
    gen = generator(seed)
    first, last = max(1, 3 - site.shift), min(n, n - site.shift)
    step = torch.randint(first, last + 1, (len(batch),), generator=gen)  # 1-based
    rows = torch.arange(len(batch))
    match variable:
        case "state":
            places = [step + site.shift]
            source, changed = _other_history(batch, bits, places[0], gen)
            within = torch.randint(2, (n,), generator=gen).bool()
            within[1] = ~within[0]
            flips, rival = (x.sum(dim=1) % 2 == 1 for x in (changed, changed & within))
        case "pointer":
            if len(set(batch.format.fixed_labels(n))) < len(batch.format.fixed_labels(n)):
                raise ValueError(f"{batch.format} repeats labels within a prompt, so none of them is a pointer")
            if site.shift or site.role not in (*INPUT_SIDE, Role.OUTPUT_LABEL):
                raise ValueError("a pointer is sought at inputs, input labels or output labels, with no shift")
            if site.role == Role.OUTPUT_LABEL:
                step = step.clamp_max(n - 2)
            number = torch.arange(1, n + 1)
            # On the output side a label that is not written yet: an earlier one would also match its own output.
            later = number > step.unsqueeze(1) if site.role == Role.OUTPUT_LABEL else number != step.unsqueeze(1)
            drawn = torch.where(later, torch.rand(len(batch), n, generator=gen), -1.0).topk(2, dim=1).indices + 1
            partner = drawn[:, 0]
            flips, rival = (bits[rows, step - 1] != bits[rows, other - 1] for other in drawn.unbind(dim=1))
            side = Role.INPUT_LABEL if site.role in INPUT_SIDE else Role.OUTPUT_LABEL
            others = counterfactual.redraw(batch, int(torch.randint(2**31, (), generator=gen)), keep="labels")
            source = counterfactual.swap_labels(others, step, partner, role=side)
            places = [step, partner] if site.role in INPUT_SIDE else [step]
    where = torch.stack([_positions(batch, site.role)[place - 1] for place in places], dim=1).sort(dim=1).values
    answers = content.parities[rows, step - 1]
    target, rivals = (torch.where(which, 1 - answers, answers) for which in (flips, rival))
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    return Pairs(batch, source, where, _positions(batch, Role.OUTPUT)[step - 1], target, symbols), rivals


def _other_history(
    batch: Batch, bits: Int[Tensor, "batch n"], until: Int[Tensor, " batch"], gen: torch.Generator
) -> tuple[Batch, Bool[Tensor, "batch n"]]:
    """Bits before the steps `until` drawn anew, the scratchpad kept; and which of them are others."""
    before = torch.arange(1, bits.shape[1] + 1) < until.unsqueeze(1)
    drawn = torch.where(before, torch.randint(2, bits.shape, generator=gen), bits)
    tokens = batch.tokens.clone()
    tokens[:, batch.at(Role.INPUT)] = batch.vocabulary.tokens(batch.format.inputs)[drawn]
    return batch.with_tokens(tokens), drawn != bits


def _positions(batch: Batch, role: Role) -> Int[Tensor, " step"]:
    """The last position of each step of a role, by step."""
    return torch.stack([batch.at(role, step)[-1] for step in range(1, _length(batch) + 1)])


def _length(batch: Batch) -> int:
    assert isinstance(batch.length, int)
    return batch.length


def _own(pairs: Pairs) -> Int[Tensor, " pair"]:
    """The answers of the base prompts."""
    written = pairs.base.tokens[torch.arange(len(pairs)), pairs.answer]
    return (written.unsqueeze(1) == pairs.symbols).long().argmax(dim=1)


def _swapped(
    joined: Joined, basis: Basis, level: float, placebo: Basis | None = None, target: Tensor | None = None
) -> Swapped:
    target = joined.pairs.target if target is None else target
    found = swapped_answers(joined, basis, placebo).argmax(dim=1) == target
    flips = target != _own(joined.pairs)
    if flips.all() or not flips.any():
        raise ValueError("the answer should change in all pairs or in none; ask for more prompts")
    follows, keeps = (wilson(int(found[which].sum()), int(which.sum()), level) for which in (flips, ~flips))
    value = follows.value + keeps.value - 1
    # Newcombe's square-and-add interval, for two proportions of different pairs.
    below = ((follows.value - follows.low) ** 2 + (keeps.value - keeps.low) ** 2) ** 0.5
    above = ((follows.high - follows.value) ** 2 + (keeps.high - keeps.value) ** 2) ** 0.5
    return Swapped(follows, keeps, Interval(value, value - below, value + above))


def _search(
    joined: Joined, rank: int, targets: Int[Tensor, " pair"], seed: int, epochs: int, attempts: int
) -> tuple[Basis, float]:
    """The best of some searches, and the share of its pairs whose target is reached; no more once one succeeds.

    Attention that is sharp has hardly a gradient from some random starts.
    """
    best: tuple[Basis, float] | None = None
    for attempt in range(attempts):
        basis = fit(joined, rank, seed + attempt, targets, epochs)
        reached = float((swapped_answers(joined, basis).argmax(dim=1) == targets).double().mean())
        if best is None or reached > best[1]:
            best = basis, reached
        if reached >= SUCCESS:
            break
    assert best is not None
    return best


def _unread_part(basis: Basis, reads: Basis) -> float:
    blocks = basis.unflatten(0, (-1, len(reads)))
    return float(1 - torch.einsum("mr,kmb->krb", reads, blocks).square().sum() / basis.square().sum())
