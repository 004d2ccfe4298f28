"""What passes may take is one number, for as long as a block lasts."""

import pytest

from interp.models.anatomy import anatomy_of
from interp.patching import logit_diff, plan
from interp.patching.editing import chunks
from interp.support.budget import DEFAULT, allowed, numbers, within
from interp.tasks import sample
from interp.tasks.counterfactual import redraw
from tests.interp.patching.models import tiny


def test_a_block_has_its_budget_and_gives_it_back():
    assert allowed() == DEFAULT
    with within(4096):
        assert (allowed(), numbers(1), numbers(1 / 4)) == (4096, 1024, 256)
        with within(8):
            assert allowed() == 8
        assert allowed() == 4096
        with pytest.raises(RuntimeError), within(16):
            raise RuntimeError
        assert allowed() == 4096
    assert allowed() == DEFAULT
    with pytest.raises(ValueError, match="at least 1 byte; got 0"), within(0):
        pass


def test_passes_keep_to_it():
    anatomy, batch = anatomy_of(tiny("rotary")), sample("parity-aligned", 32, 4, seed=0)
    metric = logit_diff(batch)
    sizes = {}
    for n_bytes in (2**20, 2**22, DEFAULT):
        with within(n_bytes):
            sizes[n_bytes] = max(len(rows) for rows in chunks(anatomy, batch, metric, copies=2))
            assert plan(anatomy.raw, batch, redraw(batch, 1), "resid_pre", metric).memory == n_bytes
    assert sizes[2**20] < sizes[2**22] <= sizes[DEFAULT] == 32
    with within(1):  # one prompt at a time is the least
        assert {len(rows) for rows in chunks(anatomy, batch, metric, copies=2)} == {1}
