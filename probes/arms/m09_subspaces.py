"""M9: describe which few directions carry the pointer or the state, and whether anything reads them.

DAS learns directions whose interchange gives the answers of a causal model with one variable changed. With enough
capacity it finds such directions anywhere (Arora et al. 2024; Makelov et al. 2311.17030). So results are on held-out
prompts and lengths, beside controls with the same training, and for the part that downstream weights read. Parity
only: see `probes.arms.registry` (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    join_layers,
    join_to_test,
    random_directions,
    swapped_answers,
    untrained,
)
from interp.models.resolve import raw_of
from interp.rowspace import part_of, read_directions
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.m09_pairs import ResidualSite, Variable, length_of, pairs_and_control_targets, pairs_for
from probes.arms.m09_scores import Subspace, own_answers, score
from probes.evidence import Evidence
from probes.intervals import LEVEL

RANKS = (1, 4, 16)
FEWEST = 32
# Share of training pairs that ends a search.
SUCCESS = 0.97
# Effects of whole residuals that differ by less count as equal.
NEARLY = 0.1


# Finished searches by variable, site, length, and whether they have trained controls.
Searches = dict[tuple[Variable, ResidualSite, int, bool], tuple[Subspace, Basis]]


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
    found = _find(raw, variable, site, batch, ranks, seed, epochs, attempts, controls, read_by, readers, level)
    if longer is None:
        return [subspace for subspace, _ in found]
    far = join_to_test(raw, site.layer, pairs_for(variable, longer, site, seed))
    return [_at_length(subspace, basis, far, length_of(longer), level) for subspace, basis in found]


def _at_length(subspace: Subspace, basis: Basis, far: Joined, length: int, level: float) -> Subspace:
    """Return the subspace with the score of its directions on prompts of another length."""
    return replace(subspace, longer=score(far, basis, level), longer_length=length)


def _find(
    raw: PreTrainedModel,
    variable: Variable,
    site: ResidualSite,
    batch: Batch,
    ranks: Sequence[int],
    seed: int,
    epochs: int = 20,
    attempts: int = 2,
    controls: bool = True,
    read_by: Sequence[tuple[int, int]] | None = None,
    readers: Sequence[str] = ("q", "k", "v"),
    level: float = LEVEL,
) -> list[tuple[Subspace, Basis]]:
    """Return the subspaces at the length of the search, with their directions."""
    pairs, control_targets = pairs_and_control_targets(variable, batch, site, seed)
    if not ranks or attempts < 1:
        raise ValueError(f"give one rank or more, and one attempt or more; got {list(ranks)}, {attempts}")
    if len(pairs) < FEWEST:
        raise ValueError(f"a search needs {FEWEST} prompts or more; got {len(pairs)}")
    cut = 2 * len(pairs) // 3
    train, test = (pairs.rows(rows) for rows in (torch.arange(cut), torch.arange(cut, len(pairs))))
    searched, tested = join(raw, site.layer, train), join_to_test(raw, site.layer, test)
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
            of_random_model = score(join_to_test(random_model, site.layer, test), random_basis, level)
        subspace = Subspace(
            variable=variable,
            site=str(site),
            rank=rank,
            length=length_of(batch),
            longer_length=None,
            answers=answers,
            held_out=score(tested, basis, level),
            longer=None,
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
        subspaces.append((subspace, basis))
    return subspaces


def measure_subspaces(
    model: PreTrainedModel,
    searched: Batch,
    tested: Batch,
    seed: int,
    pointer: bool = True,
    found: Searches | None = None,
) -> list[Evidence]:
    """Measure M9 at one length: the pointer at the output label and the state at the input label.

    Each search uses the largest of `RANKS`, with trained controls, on the prompts of `searched`. Its site is before
    the last layer at which interchanging the whole residual has nearly its largest effect. The value is follows +
    keeps - 1 on `tested`, at the length in question; the control is the matched control variable. `pointer=False`
    where labels repeat. Where the whole residual has no effect, the trained controls are skipped.

    A search depends on `searched` and its site, not on `tested`. `found` keeps the searches of one model, prompts and
    seed, so that further lengths do not repeat them.
    """
    found = {} if found is None else found
    raw = raw_of(model)
    rank = min(RANKS[-1], raw.config.hidden_size)
    wanted: dict[Variable, Role] = {"pointer": Role.OUTPUT_LABEL} if pointer else {}
    wanted["state"] = Role.INPUT_LABEL
    evidence, layers = [], range(raw.config.num_hidden_layers)
    pairs = [pairs_for(variable, tested, ResidualSite(0, role), seed) for variable, role in wanted.items()]  # any layer
    by_variable = join_layers(raw, layers, pairs, to_search=False)
    for (variable, role), joined in zip(wanted.items(), by_variable, strict=True):
        sites = [ResidualSite(layer, role) for layer in layers]
        whole = [score(joined[s.layer], everything(joined[s.layer]), LEVEL).effect.value for s in sites]
        site = [s for s, effect in zip(sites, whole, strict=True) if effect >= max(whole) - NEARLY][-1]
        search = (variable, site, length_of(searched), max(whole) > NEARLY)
        if search not in found:
            (found[search],) = _find(raw, variable, site, searched, [rank], seed, attempts=1, controls=search[-1])
        s = _at_length(*found[search], joined[site.layer], length_of(tested), LEVEL)
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
