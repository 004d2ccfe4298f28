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
from transformers import PreTrainedModel

from interp.das import (
    Basis,
    Joined,
    arbitrary_targets,
    everything,
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
from probes.arms.m09_pairs import ResidualSite, Variable, length_of, pairs_for
from probes.arms.m09_scores import Subspace, own_answers, score, score_of
from probes.arms.m09_search import Prepared, prepare, search
from probes.evidence import Evidence
from probes.intervals import LEVEL

RANKS = (1, 4, 16)
# Effects of whole residuals that differ by less count as equal.
NEARLY = 0.1


# A variable, its site, the length of the search, and whether it has trained controls.
Search = tuple[Variable, ResidualSite, int, bool]
# Finished searches.
Searches = dict[Search, tuple[Subspace, Basis]]


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
    if not ranks or attempts < 1:
        raise ValueError(f"give one rank or more, and one attempt or more; got {list(ranks)}, {attempts}")
    (prepared,) = prepare(raw, [(variable, site)], batch, seed)
    found = _find(raw, prepared, ranks, seed, epochs, attempts, controls, read_by, readers, level)
    if longer is None:
        return [subspace for subspace, _ in found]
    far = join_to_test(raw, site.layer, pairs_for(variable, longer, site, seed))
    return [_at_length(subspace, basis, far, length_of(longer), level) for subspace, basis in found]


def _at_length(subspace: Subspace, basis: Basis, far: Joined, length: int, level: float) -> Subspace:
    """Return the subspace with the score of its directions on prompts of another length."""
    return replace(subspace, longer=score(far, basis, level), longer_length=length)


def _find(
    raw: PreTrainedModel,
    prepared: Prepared,
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
    searched, tested, site = prepared.searched, prepared.tested, prepared.site
    train, test = searched.pairs, tested.pairs
    at_answer = all(bool((pairs.site == pairs.answer.unsqueeze(1) - 1).all()) for pairs in (train, test))
    if read_by is None:
        layers = range(site.layer, raw.config.num_hidden_layers)
        reads = read_directions(raw, layers, answers=test.symbols if at_answer else None)
    else:
        reads = read_directions(raw, sorted({layer for layer, _ in read_by}), readers, read_by)
    answers = float((swapped_answers(tested, None).argmax(dim=1) == own_answers(test)).double().mean())
    whole = score(tested, everything(tested), level)
    subspaces = []
    for rank in ranks:
        controlled = controls and rank == max(ranks)
        targets = [train.target, *([arbitrary_targets(train, seed)] if controlled else [])]
        (basis, fitted), *others = search(searched, rank, targets, seed, epochs, attempts)
        of_random_model = arbitrary_fitted = None
        if controlled:
            ((_, arbitrary_fitted),) = others
            random_model = untrained(raw, seed)
            random_searched = join(random_model, site.layer, train)
            ((random_basis, _),) = search(random_searched, rank, [train.target], seed, epochs, attempts)
            of_random_model = score(join_to_test(random_model, site.layer, test), random_basis, level)
        swapped = swapped_answers(tested, basis)
        subspace = Subspace(
            variable=prepared.variable,
            site=str(site),
            rank=rank,
            length=length_of(prepared.batch),
            longer_length=None,
            answers=answers,
            held_out=score_of(swapped, test, test.target, level),
            longer=None,
            whole=whole,
            placebo=score(tested, basis, level, random_directions(tested, rank, seed + 1)),
            untrained=of_random_model,
            fitted=fitted,
            arbitrary=arbitrary_fitted,
            read=score(tested, part_of(basis, reads, inside=True), level),
            unread=score(tested, part_of(basis, reads, inside=False), level),
            unread_part=_unread_part(basis, reads),
            rival=score_of(swapped, test, prepared.control_targets, level),
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
    keeps - 1 on `tested`, at the length in question; the control is the matched control variable, on the prompts of
    the search. `pointer=False` where labels repeat. Where the whole residual has no effect, the trained controls are
    skipped.

    A search depends on `searched` and its site, not on `tested`. `found` keeps the searches of one model, prompts and
    seed, so that further lengths do not repeat them.
    """
    found = {} if found is None else found
    raw = raw_of(model)
    rank = min(RANKS[-1], raw.config.hidden_size)
    wanted: dict[Variable, Role] = {"pointer": Role.OUTPUT_LABEL} if pointer else {}
    wanted["state"] = Role.INPUT_LABEL
    layers = range(raw.config.num_hidden_layers)
    pairs = [pairs_for(variable, tested, ResidualSite(0, role), seed) for variable, role in wanted.items()]  # any layer
    by_variable = join_layers(raw, layers, pairs, to_search=False)
    wanted_searches, wholes = list[Search](), list[list[float]]()
    for (variable, role), joined in zip(wanted.items(), by_variable, strict=True):
        whole = [score(joined[layer], everything(joined[layer]), LEVEL).effect.value for layer in layers]
        layer = [layer for layer in layers if whole[layer] >= max(whole) - NEARLY][-1]
        wanted_searches.append((variable, ResidualSite(layer, role), length_of(searched), max(whole) > NEARLY))
        wholes.append(whole)
    missing = [wish for wish in wanted_searches if wish not in found]
    prepared = prepare(raw, [wish[:2] for wish in missing], searched, seed) if missing else []
    for wish, ready in zip(missing, prepared, strict=True):
        (found[wish],) = _find(raw, ready, [rank], seed, attempts=1, controls=wish[-1])
    evidence = []
    for wish, whole, joined in zip(wanted_searches, wholes, by_variable, strict=True):
        variable, site, *_ = wish
        s = _at_length(*found[wish], joined[site.layer], length_of(tested), LEVEL)
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


def _unread_part(basis: Basis, reads: Basis) -> float:
    blocks = basis.unflatten(0, (-1, len(reads)))
    return float(1 - torch.einsum("mr,kmb->krb", reads, blocks).square().sum() / basis.square().sum())
