"""Take a norm apart: gain, shift, epsilon, and whether it subtracts the mean.

Architectures keep these in different places: Gemma's gain is 1 + weight, OLMo's norm has no weight, Cohere's LayerNorm
is a class of its own. So they are measured on the module.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Largest relative difference of a norm from its parts. Norms compute in float32 or better.
TOLERANCE = 1e-4
_SMALL = 1e-4  # of the residual whose norm shows epsilon


@dataclass(frozen=True)
class NormParts:
    """A norm as gain * (x - mean) / sqrt(mean square + epsilon) + shift; the mean is 0 where it does not `centre`.

    The identity, and only it, does not `scale`.
    """

    gain: Float[Tensor, " d_model"]
    shift: Float[Tensor, " d_model"]
    epsilon: float
    centres: bool
    scales: bool = True

    def scale(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """Return what the norm divides a residual by."""
        centred = resid - resid.mean(dim=-1, keepdim=True) if self.centres else resid
        spread = centred.square().mean(dim=-1, keepdim=True)
        return (spread + self.epsilon).sqrt() if self.scales else torch.ones_like(spread)

    def apply(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the norm of a residual, by the parts."""
        centred = resid - resid.mean(dim=-1, keepdim=True) if self.centres else resid
        return self.gain * centred / self.scale(resid) + self.shift


@torch.no_grad()
def norm_parts(norm: nn.Module, d_model: int, dtype: torch.dtype, device: torch.device) -> NormParts:
    """Return the parts of a norm, in float64: as torch's own classes have them, else measured.

    Raises `ValueError` for a module that is no such norm.
    """
    zero = torch.zeros(d_model, dtype=torch.float64, device=device)
    if isinstance(norm, nn.Identity):
        return NormParts(torch.ones_like(zero), zero, 0.0, centres=False, scales=False)
    changed = norm._forward_hooks or norm._forward_pre_hooks or hasattr(norm, "_hf_hook")  # accelerate's
    if type(norm) is nn.LayerNorm and not changed:
        given = ((norm.weight, zero + 1), (norm.bias, zero))
        gain, shift = (other if x is None else x.detach().to(device, torch.float64) for x, other in given)
        return NormParts(gain, shift, norm.eps, centres=True)

    def of(x: Tensor) -> Tensor:
        return norm(x.to(dtype)).double()

    gen = torch.Generator().manual_seed(0)
    # Entries of absolute value 1 to 2, of mean zero: signs come in pairs.
    half = 1 + torch.rand(d_model // 2, generator=gen, dtype=torch.float64)
    probe = torch.zeros(d_model, dtype=torch.float64)
    probe[: 2 * len(half) : 2], probe[1 : 2 * len(half) : 2] = half, -half
    if d_model % 2:
        probe[-1], probe[-2] = probe[-2] / 2, probe[-2] / 2
    probe = (32 * probe).to(device=device, dtype=dtype).double()  # epsilon is lost beside it
    there, back, moved = of(probe), of(-probe), of(probe + 16)
    shift, gain = (there + back) / 2, (there - back) / 2 / probe * probe.square().mean().sqrt()
    gain = _exact(gain, norm)
    largest = float(there.abs().max().clamp_min(1e-12))
    centres = float((moved - there).abs().max()) <= 1e-2 * largest
    small = (_SMALL * probe / probe.square().mean().sqrt()).to(dtype).double()
    slope = ((of(small) - shift) / (gain * small))[gain.abs() > 1e-3 * gain.abs().max()].median()
    parts = NormParts(gain, shift, max(0.0, float(1 / slope**2 - small.square().mean())), centres)
    other = torch.randn(4, d_model, generator=gen, dtype=torch.float64).to(device=device, dtype=dtype).double()
    tolerance = TOLERANCE if dtype in (torch.float32, torch.float64) else 0.05
    if not float((of(other) - parts.apply(other)).abs().max()) <= tolerance * max(1.0, largest):
        raise ValueError(f"{type(norm).__name__} is no LayerNorm and no RMSNorm")
    return parts


def _exact(gain: Tensor, norm: nn.Module) -> Tensor:
    """Return the norm's weight, or 1 + weight (Gemma), where the measured gain equals it to rounding; else the gain."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.shape != gain.shape:
        return gain
    for candidate in (weight.detach().double(), 1 + weight.detach().double()):
        if torch.allclose(candidate, gain, rtol=1e-2, atol=1e-3):
            return candidate
    return gain
