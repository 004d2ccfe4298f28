from __future__ import annotations

from typing import Any

import pandas
import pytest
import torch
from torch import Tensor

from interp.capturing import capture, reduce
from interp.models import BRIDGED
from interp.reducers import (
    Averages,
    HeadStatistics,
    Mean,
    attention_masses,
    label_value_share,
    value_sizes,
)
from interp.sites import Site
from interp.tasks import LABEL_ROLES, Batch, Role, sample
from interp.tasks.counterfactual import swap_labels
from tests.interp.test_capturing import bridge_of

MIXED = [
    sample("parity-aligned", 4, 3, seed=0),
    sample("parity-aligned", 3, 5, seed=1),
    sample("addition-nonaligned", 2, (2, 1), seed=2),
    sample("parity-gap2", 2, 2, seed=3),
    sample("parity-scratchpad", 2, 4, seed=4),
    sample("parity-nonaligned", 2, 3, seed=5),
    sample("recall-shuffled", 2, 4, seed=6),
    swap_labels(sample("addition-aligned", 2, 2, seed=7), 1, 2, role=Role.ANSWER_LABEL),
]
MASSES = ("matching_label", "after_matching_label", "other_labels", "labels", "previous_token", "first_token", "itself")


def planted(batch: Batch, source: Any) -> Tensor:
    """One head whose row at each position puts its mass on `source(prompt, position)`; elsewhere on itself."""
    pattern = torch.zeros(len(batch), 1, batch.n_pos, batch.n_pos)
    for row in range(len(batch)):
        for dest in range(batch.n_pos):
            src = source(row, dest)
            pattern[row, 0, dest, dest if src is None else src] = 1
    return pattern


def cited(batch: Batch, row: int, dest: int) -> set[int] | None:
    """Tokens that a position cites, literally: by the position's name."""
    role, step = Role(int(batch.role[dest])), int(batch.step[dest])
    if role in (Role.OUTPUT_LABEL, Role.ANSWER_LABEL):
        return {int(batch.tokens[row, dest])}
    wanted = {Role.OUTPUT: "output label", Role.FILLER: "output label", Role.ANSWER: "answer label"}.get(role)
    found = {int(batch.tokens[row, p]) for p in range(dest) if batch.name(p) == f"{wanted} {step}"}
    return found or None


def matching(batch: Batch, row: int, dest: int) -> list[int]:
    tokens = cited(batch, row, dest) or set()
    return [p for p in batch.at(Role.INPUT_LABEL).tolist() if int(batch.tokens[row, p]) in tokens]


def literal(pattern: Tensor, batch: Batch, row: int, head: int, dest: int) -> dict[str, float | None]:
    """The statistics of one row of one pattern, one source at a time; None where undefined."""
    a = pattern[row, head, dest].tolist()
    labels = [p for p in range(batch.n_pos) if int(batch.role[p]) in LABEL_ROLES]
    tokens, found = cited(batch, row, dest), []
    if tokens is not None and Role.INPUT_LABEL in batch.role.tolist():
        found = matching(batch, row, dest)
    return {
        "matching_label": sum(a[p] for p in found) if found else None,
        "after_matching_label": sum(a[p + 1] for p in found) if found else None,
        "other_labels": None
        if tokens is None
        else sum(a[p] for p in labels if int(batch.tokens[row, p]) not in tokens),
        "labels": sum(a[p] for p in labels),
        "previous_token": a[dest - 1] if dest else None,
        "first_token": a[0],
        "itself": a[dest],
    }


def at_role(values: Tensor, batch: Batch, role: Role) -> Tensor:
    return values[:, :, batch.at(role)]


# Planted patterns


def test_a_previous_token_head():
    batch = MIXED[0]
    found = attention_masses(planted(batch, lambda row, dest: max(dest - 1, 0)), batch)
    assert found["previous_token"][..., 0].isnan().all()
    assert (found["previous_token"][..., 1:] == 1).all()
    assert (found["itself"][..., 1:] == 0).all()
    for role in (Role.OUTPUT, Role.OUTPUT_LABEL):
        for other in ("matching_label", "after_matching_label", "other_labels", "first_token", "itself"):
            assert (at_role(found[other], batch, role) == 0).all(), (role, other)
    assert (at_role(found["labels"], batch, Role.OUTPUT) == 1).all()  # its own label stands before it
    assert (at_role(found["labels"], batch, Role.OUTPUT_LABEL) == 0).all()


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-gap2", "parity-numeric", "recall-shuffled"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_head_that_looks_at_the_matching_label_or_after_it(fmt: str, after: int):
    batch = sample(fmt, 3, 4, seed=0)

    def source(row: int, dest: int) -> int | None:
        found = matching(batch, row, dest)
        return found[0] + after if found else None

    found = attention_masses(planted(batch, source), batch)
    for role in (Role.OUTPUT, Role.OUTPUT_LABEL):
        assert (at_role(found["matching_label"], batch, role) == 1 - after).all()
        assert (at_role(found["after_matching_label"], batch, role) == after).all()
        assert (at_role(found["labels"], batch, role) == 1 - after).all()
        for other in ("other_labels", "previous_token", "first_token", "itself"):
            assert (at_role(found[other], batch, role) == 0).all()
    assert at_role(found["matching_label"], batch, Role.INPUT).isnan().all()
    assert at_role(found["other_labels"], batch, Role.INPUT_LABEL).isnan().all()


def test_a_head_that_looks_at_the_wrong_label():
    batch = MIXED[0]
    wrong = batch.at(Role.INPUT_LABEL).roll(1).tolist()
    found = attention_masses(planted(batch, lambda row, dest: wrong[int(batch.step[dest]) - 1]), batch)
    assert (at_role(found["other_labels"], batch, Role.OUTPUT) == 1).all()
    assert (at_role(found["labels"], batch, Role.OUTPUT) == 1).all()
    assert (at_role(found["matching_label"], batch, Role.OUTPUT) == 0).all()


def test_uniform_scores_as_computed_by_hand():
    """`>>> M 0 M 1 M 1 === M 0 M 1 M 1`: output 2 stands at 11 and sees 12 tokens, 5 of them labels."""
    batch = sample("parity-aligned", 2, 3, seed=0)
    uniform = torch.ones(2, 1, 14, 14).tril()
    uniform /= uniform.sum(-1, keepdim=True)
    found = {name: values[:, 0, 11] for name, values in attention_masses(uniform, batch).items()}
    twelfths = {
        "matching_label": 1,
        "after_matching_label": 1,
        "other_labels": 3,
        "labels": 5,
        "previous_token": 1,
        "first_token": 1,
        "itself": 1,
    }
    for name, count in twelfths.items():
        assert torch.allclose(found[name], torch.full((2,), count / 12)), name


def test_repeated_labels_all_match_and_labels_that_match_nothing_are_undefined():
    batch = sample("parity-constant", 2, 3, seed=0)
    uniform = torch.full((2, 1, 14, 14), 1 / 14)
    found = attention_masses(uniform, batch)
    assert torch.allclose(at_role(found["matching_label"], batch, Role.OUTPUT), torch.tensor(3 / 14))
    assert (at_role(found["other_labels"], batch, Role.OUTPUT) == 0).all()
    batch = sample("parity-nonaligned", 2, 3, seed=0)
    found = attention_masses(uniform, batch)
    assert found["matching_label"].isnan().all()
    assert torch.allclose(at_role(found["other_labels"], batch, Role.OUTPUT), torch.tensor(5 / 14))


@pytest.mark.parametrize("batch", MIXED, ids=lambda b: f"{b.format}-{b.length}")
def test_masses_are_the_literal_sums(batch: Batch):
    gen = torch.Generator().manual_seed(0)
    pattern = torch.rand(len(batch), 2, batch.n_pos, batch.n_pos, generator=gen).tril()
    pattern /= pattern.sum(-1, keepdim=True)
    found = attention_masses(pattern, batch)
    assert tuple(found) == MASSES
    for row in range(len(batch)):
        for head in range(2):
            for dest in range(batch.n_pos):
                for name, value in literal(pattern, batch, row, head, dest).items():
                    got = float(found[name][row, head, dest])
                    assert got != got if value is None else got == pytest.approx(value, abs=1e-6), (name, dest)


def test_a_sink_has_sink_rate_1_and_no_value_share():
    """Half of the mass on the first token and half on a label: a sink, unless its values are as large."""
    batch = MIXED[0]
    label = int(batch.at(Role.INPUT_LABEL)[0])
    pattern = torch.zeros(4, 1, 14, 14)
    pattern[..., 0] = pattern[..., label] = 0.5
    sizes = torch.ones(4, 1, 14)
    assert (label_value_share(pattern, sizes, batch) == 0.5).all()
    sizes[:, :, 0] = 3
    assert (label_value_share(pattern, sizes, batch) == 0.25).all()
    sizes[:, :, label] = 0
    assert (label_value_share(pattern, sizes, batch) == 0).all()
    assert label_value_share(pattern, torch.zeros(4, 1, 14), batch).isnan().all()


def test_sizes_of_values_are_norms_of_what_each_head_writes():
    gen = torch.Generator().manual_seed(0)
    v, w_o = torch.randn(2, 5, 2, 3, generator=gen), torch.randn(4, 3, 7, generator=gen)
    found = value_sizes(v, w_o)
    for head in range(4):
        for src in range(5):
            expected = torch.stack([v[row, src, head // 2] @ w_o[head] for row in range(2)]).norm(dim=-1)
            assert torch.allclose(found[:, head, src], expected, atol=1e-5)


# Over models


def everything_at_once(bridge: Any, batches: list[Batch], epsilon: float) -> dict[tuple, list[float]]:
    """Each statistic's values, row by row, from whole captures."""
    found: dict[tuple, list[float]] = {}
    for batch in batches:
        got = capture(bridge, batch, pattern=True, v=True)
        for layer in range(2):
            w_o = bridge.blocks[layer].attn.W_O.detach()
            for row in range(len(batch)):
                for head in range(4):
                    for dest in range(batch.n_pos):
                        values = literal(got.pattern[layer], batch, row, head, dest)
                        a, v = got.pattern[layer][row, head, dest], got.v[layer][row]
                        written = (a[:, None] * (v[:, head * v.shape[1] // 4] @ w_o[head])).norm(dim=-1)
                        labels = torch.tensor([int(r) in LABEL_ROLES for r in batch.role])
                        values["value_share_labels"] = float(written[labels].sum() / written.sum())
                        values["sink_rate"] = float(a[0] > epsilon)
                        role = Role(int(batch.role[dest])).words
                        for name, value in values.items():
                            cell = found.setdefault((layer, head, role, name), [])
                            cell += [] if value is None else [value]
    return found


@pytest.mark.parametrize("family", [*BRIDGED, "llama", "opt", "parallel"])
def test_head_statistics_are_the_literal_computation_on_everything_at_once(family: str):
    batches = [batch.rows(slice(2)) for batch in (MIXED if family == "llama" else MIXED[:2])]
    table = reduce(bridge_of(family), iter(batches), [HeadStatistics(0.2)])["head statistics"]
    assert list(table.columns) == ["layer", "head", "role", "statistic", "value", "n"]
    expected = everything_at_once(bridge_of(family), batches, 0.2)
    assert {tuple(key) for key in table[["layer", "head", "role", "statistic"]].values.tolist()} == set(expected)
    assert len(table) == len(expected)
    for layer, head, role, statistic, value, n in table.itertuples(index=False):
        values = expected[layer, head, role, statistic]
        assert n == len(values)
        assert pandas.isna(value) if not values else value == pytest.approx(sum(values) / n, abs=1e-5)
    rates = table[table.statistic == "sink_rate"].value
    assert 0 < rates.mean() < 1


@pytest.mark.parametrize("by", ["pos", "role"])
@pytest.mark.parametrize("site", ["resid_pre", "k", "z"])
def test_means_are_those_of_everything_at_once(site: Site, by: Any):
    bridge = bridge_of("llama")
    reducer = Mean(site, 1, by=by)
    found = reduce(bridge, iter(MIXED), [reducer, Mean("mlp_out", 0)])[reducer.name]
    assert isinstance(found, Averages)
    gathered: dict[int, list[Tensor]] = {}
    for batch in MIXED:
        whole = capture(bridge, batch, resid_pre=True, k=True, z=True)
        values = getattr(whole, site)[1].double()
        for pos in range(batch.n_pos):
            gathered.setdefault(pos if by == "pos" else int(batch.role[pos]), []).extend(values[:, pos])
    assert found.groups == tuple(sorted(gathered))
    for group, value, n in zip(found.groups, found.values, found.n, strict=True):
        assert n == len(gathered[group])
        assert torch.allclose(value, torch.stack(gathered[group]).mean(0), atol=1e-6)


def test_the_order_of_batches_and_how_prompts_are_divided_change_nothing():
    bridge, batch = bridge_of("alibi"), MIXED[0]
    reducers = [HeadStatistics(), Mean("resid_post", 1)]
    whole = reduce(bridge, MIXED, reducers)
    parts = reduce(bridge, [*MIXED[:0:-1], *(batch.rows(slice(i, i + 1)) for i in range(len(batch)))], reducers)
    pandas.testing.assert_frame_equal(whole["head statistics"], parts["head statistics"], atol=1e-6)
    assert torch.allclose(
        whole["mean resid_post 1 by role"].values, parts["mean resid_post 1 by role"].values, atol=1e-6
    )


# Errors


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="by must be 'pos' or 'role'; got 'layer'"):
        Mean("z", 0, by="layer")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="use HeadStatistics"):
        Mean("pattern", 0)
