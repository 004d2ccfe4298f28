"""The half of a model behind a site gives what the whole gives, and the search is TransformerLens's own."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.das import (
    Pairs,
    arbitrary_targets,
    everything,
    fit,
    fit_each,
    join,
    join_layers,
    random_directions,
    swapped_answers,
    untrained,
)
from interp.models import boot_bridge
from interp.models.anatomy import anatomy_of
from interp.patching.editing import forward_with_edits
from interp.tasks import Prompts, Role, default_vocabulary, sample
from tests.interp.patching.models import ARCHITECTURES, tiny

SYMBOLS = default_vocabulary().tokens(("0", "1"))


def some_pairs(size: int = 6, places: int = 1, length: int = 4) -> Pairs:
    """Sites and answers at other steps in each pair; targets at random."""
    base, source = (sample("parity-aligned", size, length, seed) for seed in (0, 1))
    gen = torch.Generator().manual_seed(0)
    step = torch.randint(1, length + 1, (size,), generator=gen)
    answer = torch.stack([base.at(Role.OUTPUT, int(s))[0] for s in step])
    choices = torch.rand(size, int(base.at(Role.SEPARATOR)[0]), generator=gen)
    site = choices.argsort(dim=1)[:, :places].sort(dim=1).values
    return Pairs(base, source, site, answer, torch.randint(2, (size,), generator=gen), SYMBOLS)


def literal(raw: Any, layer: int, pairs: Pairs, basis: Tensor | None) -> Tensor:
    """The slow reference: one whole forward pass a pair, with a hook on the raw model's block."""
    body = getattr(raw, raw.base_model_prefix)
    block = (body.h if hasattr(body, "h") else body.layers)[layer]
    seen: list[Tensor] = []
    rows = []
    for i in range(len(pairs)):

        def run(batch: Prompts, hook: Any, i: int = i) -> Tensor:
            handle = block.register_forward_pre_hook(hook, with_kwargs=True)
            try:
                return raw(batch.tokens[i : i + 1]).logits[0, pairs.answer[i] - 1, pairs.symbols]
            finally:
                handle.remove()

        run(pairs.source, lambda module, args, kwargs: seen.append(args[0].clone()))

        def swap(module: Any, args: Any, kwargs: Any, i: int = i) -> Any:
            hidden, at = args[0].clone(), pairs.site[i]
            difference = (seen[-1][0, at] - hidden[0, at]).flatten()
            moved = difference if basis is None else (difference @ basis) @ basis.T
            hidden[0, at] += moved.view(len(at), -1)
            return (hidden, *args[1:]), kwargs

        rows.append(run(pairs.base, swap))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_interchange_is_what_a_hook_on_the_raw_model_does(architecture, places):
    raw, pairs = tiny(architecture), some_pairs(places=places)
    for layer in range(3):
        joined = join(raw, layer, pairs)
        for basis in (everything(joined), random_directions(joined, 3, seed=0)):
            expected = literal(raw, layer, pairs, basis)
            assert torch.allclose(swapped_answers(joined, basis), expected, atol=2e-4 * float(expected.std() + 1))


@pytest.mark.parametrize("architecture", ["alibi", "rotary", "grouped"])
def test_a_site_may_be_where_the_answer_is_read(architecture):
    raw, pairs = tiny(architecture), some_pairs()
    pairs = dataclasses.replace(pairs, site=pairs.answer.unsqueeze(1) - 1)
    for layer in range(3):
        joined = join(raw, layer, pairs)
        expected = literal(raw, layer, pairs, everything(joined))
        found = swapped_answers(joined, everything(joined))
        assert torch.allclose(found, expected, atol=2e-4 * float(expected.std() + 1))
        assert not torch.allclose(found, joined.answers, atol=1e-3)


def test_without_directions_the_base_answers():
    raw, pairs = tiny("rotary"), some_pairs()
    joined = join(raw, 1, pairs)
    with torch.no_grad():
        logits = raw(pairs.base.tokens).logits
    expected = logits[torch.arange(len(pairs)), pairs.answer - 1][:, SYMBOLS]
    assert torch.allclose(swapped_answers(joined, None), expected, atol=1e-4)
    assert not torch.allclose(swapped_answers(joined, everything(joined)), expected, atol=1e-3)


def test_a_placebo_moves_as_far_and_elsewhere():
    joined = join(tiny("alibi"), 1, some_pairs())
    basis, other = (random_directions(joined, 2, seed) for seed in (0, 1))
    placebo = swapped_answers(joined, basis, other)
    assert not torch.allclose(placebo, swapped_answers(joined, basis))
    assert torch.allclose(swapped_answers(joined, basis, basis), swapped_answers(joined, basis), atol=1e-5)


def test_the_search_is_that_of_transformer_lens_on_whole_forward_passes():
    from transformer_lens.tools.analysis.interchange import fit_das

    raw, pairs = tiny("alibi", torch.float64), some_pairs(size=16)  # Adam blows float32's rounding up
    found = fit(join(raw, 1, pairs), rank=2, seed=3, epochs=3, batch_size=8)
    bridge = boot_bridge(copy.deepcopy(raw))
    # The position to read travels in a column of its own.
    inputs = [torch.cat([x.tokens, pairs.answer.unsqueeze(1)], dim=1) for x in (pairs.base, pairs.source)]

    def answers(rows: Tensor) -> Tensor:
        logits = bridge(rows[:, :-1])
        return logits[torch.arange(len(rows)), rows[:, -1] - 1][:, SYMBOLS]

    theirs = fit_das(
        bridge,
        "blocks.1.hook_resid_pre",
        inputs[0],
        inputs[1],
        pairs.target,
        answers,
        rank=2,
        epochs=3,
        batch_size=8,
        seed=3,
        base_positions=pairs.site[:, 0],
        source_positions=pairs.site[:, 0],
    )
    assert torch.allclose(found, theirs.basis, atol=1e-4)
    start = fit(join(raw, 1, pairs), rank=2, seed=3, epochs=0, batch_size=8)
    assert not torch.allclose(found, start, atol=1e-2)


@pytest.mark.parametrize("architecture", ["alibi", "rotary", "grouped"])
@pytest.mark.parametrize("layer", [1, 2])
def test_searches_together_are_each_search_alone(architecture, layer):
    pairs = some_pairs(size=24, places=2)
    raw = tiny(architecture, torch.float64)  # a search blows float32's rounding up
    joined, targets = join(raw, layer, pairs), [pairs.target, arbitrary_targets(pairs, 0)]
    state = torch.get_rng_state()
    together = fit_each(joined, 2, 3, targets, epochs=2, batch_size=10)
    assert torch.equal(torch.get_rng_state(), state)
    for basis, target in zip(together, targets, strict=True):
        assert torch.allclose(basis, fit(joined, 2, 3, target, epochs=2, batch_size=10), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert torch.equal(fit_each(joined, 2, 3, targets[:1], epochs=1)[0], fit(joined, 2, 3, targets[0], epochs=1))


def test_pairs_with_equal_residuals_at_the_site_are_not_run(monkeypatch: pytest.MonkeyPatch):
    raw, pairs = tiny("alibi"), some_pairs()
    tokens = torch.cat([pairs.base.tokens[:4], pairs.source.tokens[4:]])  # before layer 0 equal tokens are equal there
    pairs = dataclasses.replace(pairs, source=pairs.source.with_tokens(tokens))
    joined, expected, asked = join(raw, 0, pairs), literal(raw, 0, pairs, None), []
    assert torch.allclose(joined.source[:4], joined.base[:4])
    forward = joined.tail.forward
    monkeypatch.setattr(joined.tail, "forward", lambda index: asked.extend(index.tolist()) or forward(index))
    swapped = swapped_answers(joined, everything(joined))
    assert set(asked) <= {4, 5}
    assert torch.allclose(swapped, expected, atol=2e-4)
    assert torch.equal(swapped[:4], swapped_answers(joined, None)[:4])


@pytest.mark.parametrize("to_search", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_source_runs_end_at_the_sites(architecture, to_search):
    raw, pairs = tiny(architecture), some_pairs(size=20, places=2)
    anatomy, numbers = anatomy_of(raw), torch.arange(20).unsqueeze(1)
    (joined,) = join_layers(raw, (0, 1, 2), [pairs], to_search)
    with torch.no_grad():
        for layer, one in joined.items():
            whole, _ = forward_with_edits(anatomy, anatomy.embed(pairs.source.tokens), stop=layer)
            assert torch.allclose(one.source, whole[numbers, pairs.site].flatten(1), rtol=1e-5, atol=2e-5)


def test_the_search_leaves_the_model_as_it_was():
    raw = copy.deepcopy(tiny("rotary"))
    before = {name: p.clone() for name, p in raw.named_parameters()}
    next(raw.parameters()).requires_grad_(False)
    state = torch.get_rng_state()
    fit(join(raw, 1, some_pairs()), rank=1, epochs=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in raw.named_parameters())
    flags = [p.requires_grad for p in raw.parameters()]
    assert flags == [False] + [True] * (len(flags) - 1)
    assert not any(hasattr(module, "name") for module in raw.modules())


def test_an_untrained_model_is_another_one_of_the_same_kind(monkeypatch: pytest.MonkeyPatch):
    raw = tiny("alibi")
    state = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU was seeded"))
    one, same, other = (untrained(raw, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    models: list[Any] = [one, same, other, raw]
    weights = [m.get_input_embeddings().weight.detach() for m in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])
    assert not torch.allclose(weights[0], weights[3])
    assert type(one) is type(raw)
    assert not one.training
    assert float(weights[0].std() / weights[3].std()) == pytest.approx(1, abs=0.1)


def test_arbitrary_targets_are_of_the_source_and_fixed():
    pairs = some_pairs(size=64)
    targets = arbitrary_targets(pairs, seed=0)
    assert torch.equal(targets, arbitrary_targets(pairs, seed=0))
    assert not torch.equal(targets, arbitrary_targets(pairs, seed=1))
    assert 0.25 < float(targets.double().mean()) < 0.75


def test_mistakes_are_named():
    raw, pairs = tiny("alibi"), some_pairs()
    with pytest.raises(ValueError, match="layers 0 to 2"):
        join(raw, 3, pairs)
    joined = join(raw, 0, pairs)
    with pytest.raises(ValueError, match="ranks 1 to 16"):
        fit(joined, 17)
    with pytest.raises(ValueError, match="have 16 dimensions"):
        swapped_answers(joined, torch.eye(15))
    with pytest.raises(ValueError, match="before the answer"):
        Pairs(pairs.base, pairs.source, pairs.answer.unsqueeze(1), pairs.answer, pairs.target, SYMBOLS)
    two = some_pairs(places=2)
    with pytest.raises(ValueError, match="must rise"):
        Pairs(two.base, two.source, two.site.flip(1), two.answer, two.target, SYMBOLS)
    with pytest.raises(ValueError, match="one entry per pair"):
        Pairs(pairs.base, pairs.source, pairs.site[:2], pairs.answer, pairs.target, SYMBOLS)


@pytest.mark.parametrize(
    "target", [torch.tensor([0, 1, 2, 0, 1, 0]), torch.tensor([0, -1, 0, 0, 0, 0]), torch.zeros(6)]
)
def test_targets_that_are_no_symbol_are_refused(target):
    pairs = some_pairs()
    with pytest.raises(ValueError, match="targets must be indices of the 2 symbols, from 0 to 1"):
        dataclasses.replace(pairs, target=target)
    with pytest.raises(ValueError, match="targets must be indices"):
        fit(join(tiny("rotary"), 1, pairs), 1, targets=target, epochs=1)


def test_symbols_that_repeat_or_that_the_model_lacks_are_refused():
    pairs = some_pairs()
    with pytest.raises(ValueError, match="symbols must be different token ids"):
        dataclasses.replace(pairs, symbols=SYMBOLS[[0, 0]])
    with pytest.raises(ValueError, match="symbol 9999 is outside 0 to"):
        join(tiny("rotary"), 1, dataclasses.replace(pairs, symbols=torch.tensor([1, 9999])))


def test_directions_that_are_not_orthonormal_are_refused():
    joined = join(tiny("rotary"), 1, some_pairs())
    basis = random_directions(joined, 2, seed=0)
    swapped_answers(joined, basis)
    for wrong in (basis * 3, basis[:, [0, 0]], basis[:-1]):
        with pytest.raises(ValueError, match="directions"):
            swapped_answers(joined, wrong)
        with pytest.raises(ValueError, match="directions"):
            swapped_answers(joined, basis, wrong)
