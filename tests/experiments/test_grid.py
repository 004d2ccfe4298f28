"""The grid has every configuration that is asked for, each once."""

from dataclasses import replace

import pytest

from experiments.grid import (
    ADDITION,
    CONDITIONS,
    CONFIRMING,
    CONTROLS,
    GAPS,
    GROUPS,
    PARITY,
    PRETRAINED,
    RANK,
    SECOND_PRETRAINED,
    SECOND_SOURCE,
    runs_of,
)
from experiments.training.recipe import Pretrained
from interp.models import FAMILIES, ModelConfig
from interp.tasks import known_formats, parse_format


def test_every_run_is_there_once_and_can_be_built():
    runs = [(t.name, t.seed) for t in runs_of()]
    assert len(set(runs)) == len(runs)
    assert {t.recipe().name for t in runs_of()} == {f"{name}-seed{seed}" for name, seed in runs}
    assert [seed for _, seed in runs] == sorted(seed for _, seed in runs)


def test_every_format_and_family_has_three_seeds_or_more():
    seeds = {}
    for train in runs_of():
        seeds.setdefault(train.name, set()).add(train.seed)
    for fmt in (f for f in known_formats() if not f.startswith("recall") and parse_format(f).row.in_grid):
        assert len(seeds[f"{fmt}-alibi"]) >= 3
    for family in FAMILIES:
        for fmt in ("scratchpad", "aligned"):
            assert len(seeds[f"parity-{fmt}-{family}"]) >= 3


def test_conditions_of_a_seed_are_trained_together_and_only_where_they_are_named():
    rehearsal = runs_of(("rehearsal",))
    assert {t.recipe().name for t in rehearsal} == {f"{t.name}-seed{t.seed}" for t in rehearsal}
    assert not {t.name for t in rehearsal} & {t.name for t in runs_of()}
    first = [t.recipe().condition for t in rehearsal[:8]]
    assert sorted(first) == sorted(2 * list(CONDITIONS))
    assert {t.seed for t in rehearsal[:8]} == {1}


def test_replication_makes_eight_seeds_of_every_format():
    seeds = {}
    for train in runs_of(("confirmatory", "formats", "gaps", "addition", "replication")):
        seeds.setdefault(train.name, set()).add(train.seed)
    assert set(map(frozenset, seeds.values())) == {frozenset(range(2, 10))}


def test_hints_are_trained_from_random_weights_and_fine_tuned():
    hints = runs_of(("baselines",))
    assert {t.format for t in hints} == {"parity-hints"}
    assert sorted((t.recipe().kind, t.seed) for t in hints) == sorted(
        (kind, seed) for kind in ("alibi", PRETRAINED) for seed in range(1, 4)
    )


def test_other_sizes_are_trained_only_where_they_are_named():
    sizes = runs_of(("scale",))
    assert {t.recipe().name for t in sizes} == {f"{t.name}-seed2" for t in sizes}
    assert not {t.name for t in sizes} & {t.name for t in runs_of()}
    models = [m for t in sizes if isinstance(m := t.recipe().model, ModelConfig)]
    assert len({(m.n_layers, m.d_model) for m in models}) == len(sizes) >= 5


def test_pretrained_runs_are_adapters_of_every_format_and_eight_of_the_controls():
    seeds: dict[str, set[int]] = {}
    for train in runs_of(("pretrained",)):
        recipe = train.recipe()
        assert isinstance(recipe.model, Pretrained)
        assert recipe.kind == PRETRAINED
        assert not recipe.rehearsal
        seeds.setdefault(recipe.format, set()).add(recipe.seed)
    assert set(seeds) == {*PARITY, *GAPS, *ADDITION}
    assert {fmt for fmt, some in seeds.items() if some == set(range(1, 9))} == {f"parity-{fmt}" for fmt in CONTROLS}
    assert min(map(len, seeds.values())) == 3
    lengths = {(t.recipe().shortest, t.recipe().longest) for t in runs_of(("pretrained-paper",))}
    assert lengths == {(10, 20)}
    names = {t.recipe().name for t in runs_of(("pretrained", "pretrained-paper"))}
    assert len(names) == sum(map(len, seeds.values())) + 3 * len(PARITY)


def test_a_second_pretrained_family_is_trained_on_two_formats_by_the_same_recipe():
    second, first = runs_of(("pretrained-second",)), runs_of(("pretrained",))
    models = [train.recipe().model for train in second]
    assert {(m.source, m.lora) for m in models if isinstance(m, Pretrained)} == {(SECOND_SOURCE, RANK)}
    assert {(t.recipe().format, t.seed) for t in second} == {
        (f"parity-{fmt}", seed) for fmt in ("scratchpad", "aligned") for seed in (1, 2, 3)
    }
    recipes = {(t.recipe().format, t.seed): t.recipe() for t in first}
    assert all(replace(recipes[t.recipe().format, t.seed], model=t.recipe().model) == t.recipe() for t in second)
    assert {t.recipe().kind for t in second} == {SECOND_PRETRAINED}


def test_what_confirms_was_not_looked_at():
    """Seed 1 is the shipped run that tests, notebooks and circuits were written beside."""
    assert 1 not in CONFIRMING
    assert len(GROUPS["confirmatory"]) >= 8


def test_parts_of_the_grid():
    assert {t.seed for t in runs_of(seeds=(2,))} == {2}
    assert {t.name for t in runs_of(("gaps",))} == {f"parity-gap{g}-alibi" for g in (1, 2, 4, 8)}
    both = runs_of(("pretrained",), formats=("parity-constant", "parity-gap1"))
    assert {t.recipe().format for t in both} == {"parity-constant", "parity-gap1"}
    assert len(both) == 8 + 3
    with pytest.raises(ValueError, match="has the format x; formats are parity-gap1, parity-gap2"):
        runs_of(("gaps",), formats=("x",))
    with pytest.raises(ValueError, match="unknown groups gap; groups are confirmatory"):
        runs_of(("gap",))
    with pytest.raises(ValueError, match=r"no run of these groups has seed 1; seeds are 2, 3, 4"):
        runs_of(("gaps",), (1,))
