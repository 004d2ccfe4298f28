import pytest
import torch

from interp.tasks import Role, sample
from probes.arms.m11_offsets import measure_offsets, offsets_read
from tests.probes.oracle_models import OracleModel, planted


def test_an_address_reader_reads_at_offset_zero():
    batch = sample("parity-aligned", 6, 12, seed=0)
    found = offsets_read(OracleModel(batch, share=1.0), batch)  # type: ignore[arg-type]
    assert found.histogram == {0: 1.0}
    assert torch.equal(found.influence > 0, torch.eye(12, dtype=torch.bool))


@pytest.mark.parametrize("offset", [3, -2])
def test_a_planted_index_offset_is_found(offset):
    batch = sample("parity-aligned", 6, 20, seed=0)
    found = offsets_read(OracleModel(batch, share=0.0, offset=offset), batch)  # type: ignore[arg-type]
    assert next(iter(found.histogram)) == offset
    assert found.histogram[offset] == pytest.approx((20 - abs(offset)) / 20)  # the rest is clamped at the end


def test_a_larger_change_that_turns_nothing_over_is_not_a_read():
    """A bit may move a saturated margin further up than the own bit moves it down."""
    batch = sample("parity-aligned", 4, 8, seed=0)

    class Louder(OracleModel):
        def __call__(self, tokens, use_cache, logits_to_keep):
            out = super().__call__(tokens, use_cache, logits_to_keep)
            loud = tokens[:, batch.at(Role.INPUT, 1)] != batch.tokens[:, batch.at(Role.INPUT, 1)]
            out.logits = torch.where(loud.unsqueeze(-1), out.logits * 9, out.logits)
            return out

    found = offsets_read(Louder(batch, share=1.0), batch)  # type: ignore[arg-type]
    assert found.histogram == {0: 1.0}
    assert (found.influence[1:, 0] > found.influence.diagonal()[1:]).all()


def test_a_step_that_no_bit_decides_is_counted_as_such():
    batch = sample("parity-aligned", 4, 8, seed=0)
    assert offsets_read(OracleModel(batch, share=1.0, margin=0.0), batch).histogram == {None: 1.0}  # type: ignore[arg-type]


@pytest.mark.parametrize("fmt", ["parity-direct", "addition-aligned"])
def test_formats_without_a_step_for_each_bit_are_refused(fmt):
    batch = sample(fmt, 2, 5, seed=0)
    with pytest.raises(ValueError, match="no output step for each bit"):
        offsets_read(None, batch)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "own", "others", "histogram"),
    [
        ({"share": 1.0}, 1.0, 0.0, {"0": 1.0}),
        # At the last step there is no later bit, so it reads its own.
        ({"share": 0.0, "offset": 1}, 0.1, 0.9, {"1": 0.9, "0": 0.1}),
        ({"share": 1.0, "margin": 0.0}, 0.0, 0.0, {"None": 1.0}),
    ],
)
def test_m11_says_whose_bit_decides(options, own, others, histogram):
    batch = sample("parity-aligned", 12, 10, seed=0)
    (e,) = measure_offsets(OracleModel(batch, **options), batch)  # type: ignore[arg-type]
    assert (e.arm, e.length, e.n) == ("M11", 10, 12)
    assert e.control is not None
    assert (e.value.value, e.control.value) == pytest.approx((own, others))
    assert e.details["histogram"] == pytest.approx(histogram)


@pytest.mark.parametrize("mechanism", ["A1", "placeholder"])
def test_m11_does_not_tell_an_address_from_a_place(mechanism):
    """Every bit up to the step flips a placeholder's answer; only the step's own bit flips an anchor's."""
    model = planted(mechanism)
    batch = sample("parity-aligned", 8, 10, 0, model.vocabulary)
    (e,) = measure_offsets(model.model, batch)
    assert e.value.value == 1
    assert e.control is not None
    assert e.control.value == pytest.approx(0.9 if mechanism == "placeholder" else 0.0)
