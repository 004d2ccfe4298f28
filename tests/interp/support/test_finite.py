import pytest
import torch

from interp.support.finite import NotFinite, difference_of_finite, require_finite
from interp.tasks import sample

NAN, INF = float("nan"), float("inf")


def test_numbers_come_back_as_they_are():
    values = torch.ones(2, 3)
    assert require_finite(values, "x") is values
    assert require_finite(torch.empty(0, 3), "x", axis=0).shape == (0, 3)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_first_prompt_is_named_by_its_own_number(bad):
    values = torch.zeros(2, 4, 3)
    values[1, 2, 0] = values[0, 3, 1] = bad
    with pytest.raises(NotFinite, match=r"^x is NaN or infinite, first in prompt 2$"):
        require_finite(values, "x", axis=1)
    with pytest.raises(NotFinite, match=r"first in prompt 34$"):
        require_finite(values, "x", rows=32, axis=1)
    with pytest.raises(NotFinite, match=r"first in prompt 7$"):
        require_finite(values, "x", rows=torch.tensor([9, 8, 7, 6]), axis=1)
    with pytest.raises(NotFinite, match=r"first in prompt 0$"):
        require_finite(values, "x")


def test_the_prompt_is_shown():
    batch = sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(NotFinite) as caught:
        require_finite(torch.tensor([0.0, NAN]), "x", batch=batch)
    assert str(caught.value).endswith(f"prompt 1: {batch.text(1)}")


def test_what_overflows_in_both_is_not_compared_and_in_one_is_an_error():
    expected = torch.tensor([1.0, 2.0, NAN])
    assert difference_of_finite(torch.tensor([1.0, 2.0, INF]), expected) == 0
    assert difference_of_finite(torch.tensor([1.0, 3.0, NAN]), expected) > 1
    assert not difference_of_finite(torch.tensor([1.0, NAN, NAN]), expected) <= 1
    with pytest.raises(NotFinite, match="its weights overflow"):
        difference_of_finite(torch.tensor([1.0, 2.0, 3.0]), expected)
