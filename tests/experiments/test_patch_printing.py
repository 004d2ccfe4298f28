"""What `mnemoscope patch` prints: which prompt is which, restored shares, and each position once."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from experiments import load
from experiments.patch_printing import LARGEST, largest, show_effect
from interp.patching import PatchEffect
from interp.patching.effect import Checks, Cost

RUN = load("parity-aligned-alibi")
# Changes by layer and position: the last position changes most, in all layers.
CHANGES = torch.tensor([[0.0, 1.0, 2.5], [0.0, -1.5, 4.0], [0.0, 0.5, 3.0]])


def effect(changes: torch.Tensor = CHANGES, **other: object) -> PatchEffect:
    """Return an effect of two prompts with these mean changes from -1 toward 3."""
    labels = {"layer": tuple(range(len(changes))), "pos": tuple(f"{p}: ' t{p}'" for p in range(changes.shape[1]))}
    made = PatchEffect(
        "resid_pre",
        "logit difference",
        "denoise",
        ("layer", "pos"),
        labels,
        torch.stack([changes - 1.25, changes - 0.75], dim=-1),
        base=torch.tensor([-1.25, -0.75]),
        source=torch.tensor([2.75, 3.25]),
        checks=Checks(0, 0, 4, 1e-6, 1e-5),
        cost=Cost(9, 3, 1.0, 2.0, 1.0, 8),
    )
    return dataclasses.replace(made, **other)  # type: ignore[arg-type]


def printed(capsys: pytest.CaptureFixture[str], found: PatchEffect) -> tuple[str, list[list[str]]]:
    """Return the title and the cells of the table, its header first."""
    show_effect(RUN, found, None, "exact")
    title, *lines = capsys.readouterr().out.splitlines()
    rows = [line.replace("┃", "│").strip("│ ").split("│") for line in lines if line[:1] in "│┃"]
    return title, [[cell.strip() for cell in row] for row in rows]


def test_the_title_says_which_prompts_are_which(capsys):
    title, _ = printed(capsys, effect())
    assert "(corrupted -1.000, clean 3.000) by clean activations in the corrupted run" in title
    title, _ = printed(capsys, effect(direction="noise"))
    assert "(clean -1.000, corrupted 3.000) by corrupted activations in the clean run" in title


def test_each_position_of_the_residual_stream_is_printed_once_with_its_best_layer(capsys):
    title, rows = printed(capsys, effect())
    assert title.endswith("at each position in its best layer")
    assert rows == [
        ["layer", "pos", "change", "recovered"],
        ["1", "2: ' t2'", "+4.000", "1.000"],
        ["1", "1: ' t1'", "-1.500", "-0.375"],
    ]


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "z"])
def test_layers_of_other_sites_are_printed_one_by_one(site, capsys):
    """What one layer adds is no other layer's."""
    title, rows = printed(capsys, effect(site=site))
    assert "best layer" not in title
    order = [("1", 2), ("2", 2), ("0", 2), ("1", 1), ("0", 1), ("2", 1)]
    assert [row[:2] for row in rows[1:]] == [[layer, f"{pos}: ' t{pos}'"] for layer, pos in order]


def test_no_share_is_printed_where_nothing_could_be_restored(capsys):
    _, rows = printed(capsys, effect(source=torch.tensor([-1.25, -0.75])))
    assert rows[0] == ["layer", "pos", "change"]
    assert rows[1] == ["1", "2: ' t2'", "+4.000"]


def test_at_most_ten_positions_are_listed():
    many = effect(torch.rand(4, 30, generator=torch.Generator().manual_seed(0)))
    found = largest(many, best=True)
    best = many.change.mean(dim=-1).amax(dim=0).sort(descending=True, stable=True)
    assert [cell[-1] for cell, _ in found] == [f"{p}: ' t{p}'" for p in best.indices[:LARGEST].tolist()]
    assert [change for _, change in found] == pytest.approx(best.values[:LARGEST].tolist())
    assert largest(many, best=False) == many.top(LARGEST)
    assert len(largest(effect(torch.zeros(3, 3)), best=True)) == 1
