import pytest
import torch

from interp.tasks import sample
from probes.offsets import offsets_read
from tests.probes.oracle_models import OracleModel


def test_an_address_reader_reads_at_offset_zero():
    batch = sample("parity-aligned", 6, 12, seed=0)
    found = offsets_read(OracleModel(batch, share=1.0), batch)  # type: ignore[arg-type]
    assert found.histogram == {0: 1.0}
    assert torch.equal(found.influence > 0, torch.eye(12, dtype=torch.bool))


@pytest.mark.parametrize("offset", [3, -2])
def test_a_planted_index_offset_is_found(offset):
    batch = sample("parity-aligned", 6, 20, seed=0)
    found = offsets_read(OracleModel(batch, share=0.0, offset=offset), batch)  # type: ignore[arg-type]
    assert max(found.histogram, key=found.histogram.__getitem__) == offset
    assert found.histogram[offset] == pytest.approx((20 - abs(offset)) / 20)  # the rest is clamped at the end


@pytest.mark.parametrize("fmt", ["parity-direct", "addition-aligned"])
def test_formats_without_a_step_for_each_bit_are_refused(fmt):
    batch = sample(fmt, 2, 5, seed=0)
    with pytest.raises(ValueError, match="no output step for each bit"):
        offsets_read(None, batch)  # type: ignore[arg-type]
