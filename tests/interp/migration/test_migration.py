"""Each task gives the numbers of its TransformerLens counterpart."""

from __future__ import annotations

import pytest
import torch

from interp.models import Run
from tests.interp.migration.tasks import TASKS, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_run(tmp_path_factory.mktemp("small"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_numbers_are_those_of_transformer_lens(name, run):
    ours, theirs = TASKS[name].here(run), TASKS[name].there(run)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.shape == theirs[key].shape, key
        torch.testing.assert_close(value.double(), theirs[key].double(), atol=1e-4, rtol=1e-4, msg=key)
        assert value.double().std() > 1e-4, f"{key} is the same everywhere"
