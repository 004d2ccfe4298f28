"""Two maps side by side: what stands where."""

import numpy as np
import pytest
import torch

from interp.attribution import Attribution
from interp.tasks import Role, sample
from tests.experiments.drawing.zoo.runs import zoo


def attributed(fmt: str, length: int = 30) -> Attribution:
    """Step i depends on bit i, three times as much on the parity before it."""
    batch = sample(fmt, batch_size=2, length=length, seed=0)
    values = torch.zeros(2, length, batch.n_pos)
    for k in range(length):
        values[:, k, batch.at(Role.INPUT, k + 1)] = torch.tensor([1.0, -1.0])[:, None] * (k + 1)
        if k:
            values[:, k, batch.at(Role.OUTPUT, k)] = -3.0 * (k + 1)
    return Attribution(values, batch, batch.at(Role.OUTPUT), "signed", "gradient x input", torch.ones(2, length))


class TestMaps:
    def test_columns_are_shares_of_absolute_values(self):
        found = attributed("parity-aligned")
        plain, with_ = zoo.maps(attributed("parity-scratchpad"), found, trained_to=20).axes[:2]
        # Step 1, which has no parity before it, hangs on its bit alone.
        mean = "mean share: bit i 0.29, past 0.25; parity at i-1 0.75, past 0.75"
        assert (plain.get_title(), with_.get_title()) == (f"scratchpad\n{mean}", f"aligned\n{mean}")
        shares = np.asarray(with_.images[0].get_array())
        assert shares.sum(axis=0) == pytest.approx(np.ones(30))
        bit, before = (int(found.prompts.at(role, step)[0]) for role, step in ((Role.INPUT, 8), (Role.OUTPUT, 7)))
        assert (shares[bit, 7], shares[before, 7]) == pytest.approx((0.25, 0.75))

    def test_both_diagonals_are_outlined_at_the_sides_of_their_cells(self):
        found = attributed("parity-aligned")
        axis = zoo.maps(attributed("parity-scratchpad"), found, trained_to=20).axes[1]
        sides = [lines for lines in axis.collections if lines.get_label() == "_ideal"]
        assert [len(lines.get_paths()) for lines in sides] == [30, 30, 29, 29]
        left = sides[0].get_paths()[11].vertices
        row = int(found.prompts.at(Role.INPUT, 12)[0])
        assert left[:, 0].tolist() == [10.5, 10.5]
        assert left[:, 1].mean() == pytest.approx(row)

    def test_the_trained_length_is_marked_on_both_sides(self):
        found = attributed("parity-aligned")
        axis = zoo.maps(attributed("parity-scratchpad"), found, trained_to=20).axes[1]
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        first = [int((found.prompts.step == 21).nonzero().flatten()[k]) - 0.5 for k in (0, 2)]
        assert list(dashed[0].get_xdata()) == [20 - 0.5] * 2
        assert [line.get_ydata()[0] for line in dashed[1:]] == first
        unmarked = zoo.maps(attributed("parity-scratchpad"), found, trained_to=30).axes[1]
        assert not [line for line in unmarked.lines if line.get_linestyle() == "--"]
        assert "past" not in unmarked.get_title()

    def test_other_tasks_and_other_lengths_are_refused(self):
        with pytest.raises(ValueError, match="of one length stand side by side; got 20, 30"):
            zoo.maps(attributed("parity-scratchpad", 20), attributed("parity-aligned"), trained_to=20)
        batch = sample("addition-aligned", batch_size=1, length=(2, 2), seed=0)
        dest = batch.at(Role.OUTPUT)
        values = torch.zeros(1, len(dest), batch.n_pos)
        other = Attribution(values, batch, dest, "signed", "x", torch.ones(1, len(dest)))
        with pytest.raises(ValueError, match="maps are of parity; got addition-aligned"):
            zoo.maps(other, attributed("parity-aligned"), trained_to=20)
