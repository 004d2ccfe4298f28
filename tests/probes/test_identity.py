import pytest

from interp.tasks import Role, sample
from probes.identity import choose, follow_the_label, refuse
from tests.probes.oracle_models import OracleModel


def arms(share: float, length: int = 12, fmt: str = "parity-aligned", noise: float = 0.0):
    batch = sample(fmt, 200, length, seed=3)
    # The oracle answers a batch of any size, but the layout must be the one that is asked.
    found = follow_the_label(OracleModel(batch, share, noise=noise), batch, seed=5)  # type: ignore[arg-type]
    return {e.name[:2] if "held" not in e.name else "held out": e for e in found}


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-gap2", "parity-numeric"])
def test_an_address_follows_the_label_wholly(fmt):
    found = arms(share=1.0, fmt=fmt)
    for name in ("M1", "M2"):
        assert found[name].effect.value == pytest.approx(1.0, abs=1e-6)
        assert found[name].follows.value == 1.0
        control, follows = found[name].control, found[name].control_follows
        assert control is not None
        assert follows is not None
        assert control.value == pytest.approx(0.0, abs=1e-6)
        assert follows.value == 0.0
    for name in ("M3", "held out"):
        assert found[name].effect.value == pytest.approx(0.0, abs=1e-6)
        assert found[name].follows.value == 0.0


def test_an_index_solution_does_not_follow_at_all():
    for evidence in arms(share=0.0).values():
        assert evidence.effect.value == pytest.approx(0.0, abs=1e-6)
        assert evidence.follows.value == 0.0


def test_a_mixture_shows_its_share_and_the_interval_covers_it():
    for noise in (0.0, 0.5):
        found = arms(share=0.7, noise=noise)
        for name in ("M1", "M2"):
            effect = found[name].effect
            assert effect.low <= 0.7 + 1e-6
            assert effect.high >= 0.7 - 1e-6
            assert effect.value == pytest.approx(0.7, abs=0.05)


def test_non_aligned_labels_are_no_address_even_for_an_address_reader():
    """Output labels match nothing, so trading input labels cannot be followed."""
    batch = sample("parity-nonaligned", 100, 10, seed=0)
    found = follow_the_label(OracleModel(batch, share=0.0), batch, seed=0)  # type: ignore[arg-type]
    assert found[0].effect.value == pytest.approx(0.0, abs=1e-6)


def test_a_model_that_ignores_the_bits_gives_an_error_and_no_number():
    batch = sample("parity-aligned", 50, 8, seed=0)
    with pytest.raises(ValueError, match="too little to normalise"):
        follow_the_label(OracleModel(batch, share=1.0, margin=0.0), batch, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [5, 9, 30])
def test_chosen_steps_are_what_they_promise(length):
    batch = sample("parity-aligned", 300, length, seed=1)
    chosen = choose(batch, seed=2)
    x = chosen.batch
    assert len(x) > 100
    bits = x.tokens[:, x.at(Role.INPUT)]
    i, j, (k, m) = chosen.step - 1, chosen.partner - 1, (s - 1 for s in chosen.bystanders)
    read = {name: bits.gather(1, s.unsqueeze(1)) for name, s in {"i": i, "j": j, "k": k, "m": m}.items()}
    assert (read["i"] != read["j"]).all()
    assert (read["k"] != read["m"]).all()
    for other in (k, m):
        assert (other < i).all()
        assert (other != j).all()
    assert len(set(i.tolist())) == length - 3
    assert set(j.tolist()) == set(range(length))


@pytest.mark.parametrize(
    ("fmt", "length", "words"),
    [
        ("parity-scratchpad", 10, "no labels"),
        ("parity-constant", 10, "repeats labels"),
        ("parity-cyclic", 10, "repeats labels"),
        ("addition-aligned", 5, "not parity"),
        ("parity-aligned", 4, "at least 5"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(fmt, length, words):
    batch = sample(fmt, 4, length, seed=0)
    assert words in (refuse(batch) or "")
    with pytest.raises(ValueError, match=words):
        choose(batch, seed=0)


def test_cyclic_labels_within_one_period_are_an_address():
    assert refuse(sample("parity-cyclic", 4, 8, seed=0)) is None
