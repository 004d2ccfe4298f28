from dataclasses import replace

import pytest
import torch

from interp.patching.effect import PatchEffect


def effect(values, base, source):
    labels = {"layer": (0, 1), "pos": ("0: start", "1: input 1", "2: input 2")}
    return PatchEffect(
        "resid_pre",
        "logit difference",
        "denoise",
        ("layer", "pos"),
        labels,
        torch.tensor(values),
        torch.tensor(base),
        torch.tensor(source),
    )


KNOWN = effect(
    [[[0.0, 0.0], [2.0, 4.0], [1.0, 2.0]], [[0.0, 0.0], [-1.0, -1.0], [0.5, 0.5]]], base=[0.0, 0.0], source=[2.0, 4.0]
)


def test_recovered_is_a_ratio_of_means():
    assert torch.allclose(KNOWN.recovered, torch.tensor([[0.0, 1.0, 0.5], [0.0, -1 / 3, 1 / 6]]))


def test_top_orders_by_size_of_change():
    with pytest.raises(ValueError, match="k must be 1 or more; got -1"):
        KNOWN.top(-1)
    assert KNOWN.top(3) == [((0, "1: input 1"), 3.0), ((0, "2: input 2"), 1.5), ((1, "1: input 1"), -1.0)]


@pytest.mark.parametrize("source", [[0.0, 0.0], [5.0, -5.0], [1e-9, 1e-9]])
def test_recovered_never_divides_by_nothing(source):
    with pytest.raises(ValueError, match="too little to recover"):
        _ = effect(KNOWN.values.tolist(), [0.0, 0.0], source).recovered


def test_dataframe_has_one_row_for_each_cell_and_prompt():
    frame = KNOWN.to_dataframe()
    assert list(frame.columns) == ["layer", "pos", "prompt", "value", "base", "source"]
    assert len(frame) == 12
    row = frame[(frame.layer == 1) & (frame.pos == "1: input 1") & (frame.prompt == 1)].iloc[0]
    assert (row.value, row.base, row.source) == (-1.0, 0.0, 4.0)


def test_without_a_source_run_the_dataframe_has_no_column_for_it():
    ablated = replace(KNOWN, source=KNOWN.base)
    assert list(ablated.to_dataframe().columns) == ["layer", "pos", "prompt", "value", "base"]


def test_statistics_of_transformer_lens_apply():
    result = KNOWN.to_patching_result()
    assert torch.allclose(result.effect(), KNOWN.change)
    assert torch.allclose(result.normalized(KNOWN.source).mean(dim=-1)[0], torch.tensor([0.0, 1.0, 0.5]))
    low, high = result.bootstrap_ci(n_resamples=50)
    assert (low <= result.mean()).all()
    assert (result.mean() <= high).all()
    assert {"layer", "pos"} <= set(result.to_dataframe().columns)


def test_shapes_are_checked_where_a_value_is_born():
    with pytest.raises(ValueError, match="values must be"):
        effect([[[0.0]]], [0.0], [1.0])
