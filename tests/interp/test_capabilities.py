"""Every function of the matrix of capabilities: what works and what is refused, and how results present themselves."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pandas
import pytest
import torch
from torch import Tensor

from interp.views.results import view_of
from tests.interp.capabilities import FILE, FUNCTIONS, TYPES, peak, refusal
from tests.interp.models.architecture_cases import build


@cache
def result(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights: the pair is invalid, the bridge's metric undeclared
        return FUNCTIONS[name](build("gpt2"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_have_one_line_a_table_and_a_view(name):
    found = result(name)
    if isinstance(found, Tensor):
        return
    assert "\n" not in repr(found)
    assert len(repr(found)) < 300
    assert type(found).__name__ in repr(found)
    table = found.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert len(table)
    assert (view_of(found) is None) == (name in ("`edge_scores`", "`capture`, residual stream"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_the_committed_matrix_says_what_works(kind):
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    assert list(committed) == list(FUNCTIONS)
    for name, function in FUNCTIONS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `result`
            found = refusal(function, build(kind))
        assert found == committed[name][kind].get("refused"), name


def test_the_peak_is_what_is_held_at_a_time():
    def work() -> None:
        for _ in range(3):  # one after the other
            torch.zeros(2**18)
        kept = [torch.ones(2**18), torch.ones(2**18)]
        del kept

    assert 2**21 <= peak(work) < 2**21 + 2**16
