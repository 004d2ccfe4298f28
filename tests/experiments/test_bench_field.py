"""The benchmarks of grids and of integration compare equal numbers, and their errors are those of the definition."""

import json

import pytest
import torch

from experiments.benchmarks import integration
from experiments.benchmarks.grids import GRIDS, GridCase, compared, run_case
from experiments.benchmarks.integration import IntegrationCase
from experiments.cli import main
from interp.circuits import edge_scores
from interp.patching import grids, logit_diff
from interp.tasks import counterfactual, sample


def test_every_grid_of_the_package_is_in_the_benchmark():
    public = {name.removeprefix("get_act_patch_") for name in vars(grids) if name.startswith("get_act_patch_")}
    assert public == set(GRIDS)


@pytest.mark.slow
def test_a_row_of_grids_compares_equal_numbers():
    row = run_case(GridCase("qwen2", 2, 16, 2, 5), rounds=1)
    assert list(row["grids"]) == list(GRIDS)
    assert all(grid["difference"] < 1e-5 for grid in row["grids"].values())
    assert row["grids"]["resid_pre"]["values"] == 2 * 5


def test_the_difference_is_of_any_way_from_transformer_lens():
    ways = {
        name: lambda x=x: torch.tensor([4.0, x])
        for name, x in (("transformer_lens", 1.0), ("ours", 1.0), ("declared", 3.0))
    }
    found = compared(ways, rounds=2)
    assert found["difference"] == 0.5
    assert found["values"] == 2
    assert set(found["ms"]) == set(ways)


def test_the_error_of_integration_by_hand(tmp_path, monkeypatch):
    case = IntegrationCase("absolute", 3, prompts=2)
    monkeypatch.setattr(integration, "DEFAULT", (case,))
    monkeypatch.setattr(integration, "LIMIT", 24)
    monkeypatch.setattr(integration, "NEAR", 12)
    assert main(["bench", "--integration", "--rounds", "1", "--out", str(tmp_path)]) == 0
    row = json.loads((tmp_path / "integration.json").read_text(encoding="utf-8"))["rows"][case.name]
    model, clean = integration.model_and_prompts(case)
    corrupted = counterfactual.redraw(clean, seed=1)
    few, limit = (
        edge_scores(model, clean, corrupted, logit_diff(clean), n=n, points=points).values.double()  # type: ignore[arg-type]
        for n, points in ((5, "even"), (24, "adaptive"))
    )
    assert row["error"]["even"]["5"] == pytest.approx(float((few - limit).abs().max() / limit.abs().max()), rel=1e-3)
    assert row["error"]["even"]["5"] > row["error"]["even"]["12"]
    assert row["tokens"] == sample("parity-aligned", 1, 3, seed=0).n_pos
