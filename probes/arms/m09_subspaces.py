"""M9: describe which few directions carry the pointer or the state, and whether anything reads them.

DAS learns directions whose interchange gives the answers of a causal model with one variable changed. With enough
capacity it finds such directions anywhere (Arora et al. 2024; Makelov et al. 2311.17030). So results are on held-out
prompts and lengths, beside controls with the same training, and for the part that downstream weights read. Parity
only: see `probes.arms.registry` (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.das import (
    Basis,
    Joined,
    arbitrary_targets,
    everything,
    fit,
    join,
    random_directions,
    swapped_answers,
    untrained,
)
from interp.models.resolve import raw_of
from interp.rowspace import part_of, read_directions
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.m09_pairs import ResidualSite, Variable, length_of, pairs_and_control_targets, pairs_for
from probes.arms.m09_scores import InterchangeScore, own_answers, score
from probes.evidence import PROMPTS, Evidence
from probes.intervals import LEVEL

RANKS = (1, 4, 16)
FEWEST = 32
# Share of training pairs that ends a search.
SUCCESS = 0.97
# Effects of whole residuals that differ by less count as equal.
NEARLY = 0.1


@dataclass(frozen=True)
class Subspace:
    """The result of DAS at a site with `rank` directions, with its controls.

    `held_out` and `longer`: other prompts, at the length of the search and at another. `whole`: interchange of the
    whole residual. `placebo`: as many random directions, moved as far. `untrained`: the same search on a model with
    random weights. `fitted` and `arbitrary`: the share of training pairs whose target is reached, for the causal
    model's targets and for arbitrary ones (what expressivity alone can fit). `read` and `unread`: interchange of only
    the part of the directions that downstream weights read, or only the rest; `unread_part` is the rest's share of
    the directions' squared length. An effect that `read` does not have is an illusion. `answers`: how often the base
    prompts are answered correctly; where it is low, the other numbers mean little. `rival`: the same answers scored
    by a matched control variable (the pointer to a step that no label names; the parity of a random subset of the
    history). An interchange that only makes the model read some other slot has as much effect there. `untrained` and
    `arbitrary` are None where they were not requested, and for all but the largest rank.
    """

    variable: Variable
    site: str
    rank: int
    length: int
    longer_length: int | None
    answers: float
    held_out: InterchangeScore
    longer: InterchangeScore | None
    whole: InterchangeScore
    placebo: InterchangeScore
    untrained: InterchangeScore | None
    fitted: float
    arbitrary: float | None
    read: InterchangeScore
    unread: InterchangeScore
    unread_part: float
    rival: InterchangeScore
    n: int
    unit: str = PROMPTS

    def to_json(self) -> dict:
        """Return a nested plain dictionary."""
        return asdict(self)


def find_subspaces(
    model: PreTrainedModel,
    variable: Variable,
    site: ResidualSite,
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
    """Run DAS for each rank: search on two thirds of `batch`, test on the rest and on `longer`.

    By default the readers are every head and MLP from the layer on, and at the answer its logits. In a trained model
    these together read every direction: `read_by` narrows them to the `readers` (q, k, v) of (layer, head) pairs, and
    only then is `read` informative. The two trained controls use the largest rank, which can fit the most;
    `controls=False` leaves them out. Use a thousand prompts or more: with few, DAS fits the prompts. At a site of
    several positions (the pointer on the input side) directions span all positions together. Raises `ValueError` as
    `pairs_for`, and for a layer or rank that does not exist.

    >>> site = ResidualSite(1, Role.OUTPUT_LABEL)
    >>> subspaces = find_subspaces(run.raw, "pointer", site, run.sample(1500, 10, 0), run.sample(200, 20, 1))
    >>> print(subspaces[-1].held_out.effect)
    """
    raw = raw_of(model)
    pairs, control_targets = pairs_and_control_targets(variable, batch, site, seed)
    if not ranks or attempts < 1:
        raise ValueError(f"give one rank or more, and one attempt or more; got {list(ranks)}, {attempts}")
    if len(pairs) < FEWEST:
        raise ValueError(f"a search needs {FEWEST} prompts or more; got {len(pairs)}")
    cut = 2 * len(pairs) // 3
    train, test = (pairs.rows(rows) for rows in (torch.arange(cut), torch.arange(cut, len(pairs))))
    searched, tested = join(raw, site.layer, train), join(raw, site.layer, test)
    far = None if longer is None else join(raw, site.layer, pairs_for(variable, longer, site, seed))
    random_model = untrained(raw, seed)
    at_answer = bool((pairs.site == pairs.answer.unsqueeze(1) - 1).all())
    if read_by is None:
        layers = range(site.layer, raw.config.num_hidden_layers)
        reads = read_directions(raw, layers, answers=pairs.symbols if at_answer else None)
    else:
        reads = read_directions(raw, sorted({layer for layer, _ in read_by}), readers, read_by)
    answers = float((swapped_answers(tested, None).argmax(dim=1) == own_answers(test)).double().mean())
    whole = score(tested, everything(tested), level)
    arbitrary = arbitrary_targets(train, seed)
    subspaces = []
    for rank in ranks:
        basis, fitted = _search(searched, rank, train.target, seed, epochs, attempts)
        of_random_model = arbitrary_fitted = None
        if controls and rank == max(ranks):
            _, arbitrary_fitted = _search(searched, rank, arbitrary, seed, epochs, attempts)
            random_basis, _ = _search(join(random_model, site.layer, train), rank, train.target, seed, epochs, attempts)
            of_random_model = score(join(random_model, site.layer, test), random_basis, level)
        subspaces.append(
            Subspace(
                variable=variable,
                site=str(site),
                rank=rank,
                length=length_of(batch),
                longer_length=None if longer is None else length_of(longer),
                answers=answers,
                held_out=score(tested, basis, level),
                longer=None if far is None else score(far, basis, level),
                whole=whole,
                placebo=score(tested, basis, level, random_directions(tested, rank, seed + 1)),
                untrained=of_random_model,
                fitted=fitted,
                arbitrary=arbitrary_fitted,
                read=score(tested, part_of(basis, reads, inside=True), level),
                unread=score(tested, part_of(basis, reads, inside=False), level),
                unread_part=_unread_part(basis, reads),
                rival=score(tested, basis, level, target=control_targets[cut:]),
                n=len(test),
            )
        )
    return subspaces


def measure_subspaces(
    model: PreTrainedModel, searched: Batch, tested: Batch, seed: int, pointer: bool = True
) -> list[Evidence]:
    """Measure M9 at one length: the pointer at the output label and the state at the input label.

    Each search uses the largest of `RANKS`, with trained controls, on the prompts of `searched`. Its site is before
    the last layer at which interchanging the whole residual has nearly its largest effect. The value is follows +
    keeps - 1 on `tested`, at the length in question; the control is the matched control variable. `pointer=False`
    where labels repeat. Where the whole residual has no effect, the trained controls are skipped.
    """
    raw = raw_of(model)
    rank = min(RANKS[-1], raw.config.hidden_size)
    wanted: dict[Variable, Role] = {"pointer": Role.OUTPUT_LABEL} if pointer else {}
    wanted["state"] = Role.INPUT_LABEL
    evidence = []
    for variable, role in wanted.items():
        sites = [ResidualSite(layer, role) for layer in range(raw.config.num_hidden_layers)]
        whole = []
        for site in sites:
            joined = join(raw, site.layer, pairs_for(variable, tested, site, seed))
            whole.append(score(joined, everything(joined), LEVEL).effect.value)
        site = [s for s, effect in zip(sites, whole, strict=True) if effect >= max(whole) - NEARLY][-1]
        (s,) = find_subspaces(
            raw, variable, site, searched, tested, [rank], seed, attempts=1, controls=max(whole) > NEARLY
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
        evidence.append(
            Evidence(
                key=keys.POINTER_SUBSPACE if variable == "pointer" else keys.STATE_SUBSPACE,
                question=f"do few directions carry the {variable}? DAS at {s.site}",
                length=length_of(tested),
                quantity="follows + keeps - 1",
                value=s.longer.effect,
                control=s.rival.effect,
                n=s.n,
                details=details,
            )
        )
    return evidence


def _search(
    joined: Joined, rank: int, targets: Int[Tensor, " pair"], seed: int, epochs: int, attempts: int
) -> tuple[Basis, float]:
    """Return the best of several searches and the share of its pairs whose target is reached; stop at a success.

    Sharp attention gives almost no gradient from some random starts.
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
