"""Rows of attention whose masses are counted by hand, or one token at a time."""

import pytest
import torch
from torch import Tensor

from interp.circuits.attention_stats import attention_statistics, rotate_labels
from interp.tasks import Batch, Role, sample

LABEL = Role.OUTPUT_LABEL


def uniform(batch: Batch) -> Tensor:
    rows = torch.ones(len(batch), 1, batch.n_pos, batch.n_pos).tril()
    return rows / rows.sum(dim=-1, keepdim=True)


def test_uniform_attention_as_counted_by_hand():
    """`>>> M 0 M 1 M 1 === M 0 M 1 M 1`: the label of output 2 stands at 10 and sees 11 tokens."""
    batch = sample("parity-aligned", 2, 3, seed=0)
    batch = batch.with_tokens(batch.tokens[:1].expand(2, -1))
    found = {name: values[:, 0, 10] for name, values in attention_statistics(uniform(batch), batch).items()}
    elevenths = {"induction": 1, "due_input": 1, "due_label": 1, "inputs": 3, "outputs": 1, "spread": 11}
    elevenths["separator"] = 1  # `>>>` is the start
    for name, count in elevenths.items():
        assert torch.allclose(found[name], torch.full((2,), count / 11)), name
    separator = int(batch.at(Role.SEPARATOR))
    masses = attention_statistics(uniform(batch), batch)["separator"]
    assert masses[..., :separator].isnan().all()
    assert masses[..., separator:].isfinite().all()
    # Its own label occurred once, in front of its bit.
    assert torch.equal(found["induction"], found["after_matching_label"])


def test_induction_as_one_token_at_a_time_defines_it():
    batch = sample("parity-scratchpad", 3, 5, seed=1)
    gen = torch.Generator().manual_seed(0)
    pattern = torch.rand(3, 2, batch.n_pos, batch.n_pos, generator=gen).tril()
    found = attention_statistics(pattern, batch)["induction"]
    some = none = 0
    for row, dest in ((r, d) for r in range(3) for d in range(batch.n_pos)):
        tokens = batch.tokens[row].tolist()
        after = [s for s in range(1, dest) if tokens[s - 1] == tokens[dest]]
        if after:
            assert torch.allclose(found[row, :, dest], pattern[row, :, dest, after].sum(dim=-1))
        else:
            assert found[row, :, dest].isnan().all()
        some, none = some + bool(after), none + (not after)
    assert some
    assert none


def test_what_is_due():
    batch = sample("parity-aligned", 1, 4, seed=0)
    looks = torch.zeros(1, 1, batch.n_pos, batch.n_pos)
    asked, before = batch.at(LABEL, 3), batch.at(Role.OUTPUT, 2)
    looks[0, 0, asked, batch.at(Role.INPUT, 3)] = 1
    looks[0, 0, before, batch.at(Role.INPUT_LABEL, 3)] = 1
    found = {name: values[0, 0] for name, values in attention_statistics(looks, batch).items()}
    assert found["due_input"][asked] == 1
    assert found["due_label"][asked] == 0
    assert found["due_label"][before] == 1
    assert found["due_input"][before] == 0
    assert found["due_input"][: int(batch.at(Role.INPUT).max()) + 1].isnan().all()
    assert found["due_input"][-1].isnan()  # nothing is answered after it
    assert found["due_input"][batch.at(LABEL, 2)] == 0


def test_what_is_due_where_the_answer_before_is_what_asks():
    batch = sample("parity-scratchpad", 1, 4, seed=0)
    for step in (1, 2, 3):
        looks = torch.zeros(1, 1, batch.n_pos, batch.n_pos)
        looks[..., batch.at(Role.INPUT, step + 1)] = 1
        found = attention_statistics(looks, batch)["due_input"][0, 0, batch.at(Role.OUTPUT)]
        expected = [float(s == step) for s in (1, 2, 3)]
        assert found[:3].tolist() == expected
        assert found[3].isnan()


def test_spread_counts_what_can_be_seen():
    batch = sample("parity-aligned", 1, 2, seed=0)
    one = torch.eye(batch.n_pos)[None, None]
    assert torch.allclose(attention_statistics(one, batch)["spread"][0, 0], 1 / torch.arange(1, batch.n_pos + 1))
    assert torch.allclose(attention_statistics(uniform(batch), batch)["spread"], torch.ones(1))
    everywhere = torch.full_like(one, 1 / batch.n_pos)
    assert torch.allclose(attention_statistics(everywhere, batch)["spread"], torch.ones(1))


def test_turned_labels():
    batch = sample("parity-aligned", 2, 3, seed=0)
    turned = rotate_labels(batch)
    at = batch.at(LABEL)
    assert torch.equal(turned.tokens[:, at], batch.tokens[:, at][:, [1, 2, 0]])
    assert (turned.tokens != batch.tokens).sum() == 2 * 3
    with pytest.raises(ValueError, match="all the same"):
        rotate_labels(sample("parity-constant", 2, 3, seed=0))
