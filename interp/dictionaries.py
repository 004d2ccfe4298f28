"""Feature dictionaries: linear encoders and decoders at a site, such as SAEs, transcoders, probes and DAS subspaces.

A dictionary is given as tensors, or as a folder (`interp.dictionary_files`). It is not trained here. `interp.features`
patches, ablates and attributes its features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sites import Site, require_site

Activation = Literal["relu", "identity", "jumprelu", "topk"]
# Sites that a dictionary can read and write; the heads of q, k, v and z are side by side in one vector.
DICTIONARY_SITES: tuple[Site, ...] = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_in",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
)
Place = tuple[Site, int]


@dataclass(frozen=True, eq=False)
class FeatureDictionary:
    """Features of the activations at a site, and the directions that they write.

    features = activation((x - b_dec) W_enc + b_enc), without b_dec where not `centred`; reconstruction = features W_dec
    + b_dec. What the reconstruction misses is the error term, which interventions keep.

    Shapes:
        W_enc: `[d_in feature]`.
        W_dec: `[feature d_out]`.
        b_enc, threshold: `[feature]`; `threshold` of "jumprelu" alone.
        b_dec: `[d_out]`.

    `reads` is the site and layer of x; `writes` that of the reconstruction, by default the same (an SAE). A transcoder
    reads mlp_in and writes mlp_out. Raises `ValueError` for shapes that do not fit.
    """

    W_enc: Float[Tensor, "d_in feature"]
    W_dec: Float[Tensor, "feature d_out"]
    reads: Place
    writes: Place | None = None
    b_enc: Float[Tensor, " feature"] | None = None
    b_dec: Float[Tensor, " d_out"] | None = None
    activation: Activation = "relu"
    threshold: Float[Tensor, " feature"] | None = None
    k: int | None = None
    centred: bool = False

    def __post_init__(self) -> None:
        for what, place in (("reads", self.reads), ("writes", self.target)):
            if not isinstance(place, tuple) or len(place) != 2:
                raise ValueError(f"{what} is a site and a layer, such as ('resid_pre', 5); got {place!r}")
            require_site(place[0], DICTIONARY_SITES)
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}; got {self.activation!r}")
        if (self.threshold is not None) != (self.activation == "jumprelu"):
            raise ValueError("a threshold is given for the activation 'jumprelu', and for no other")
        if (self.k is not None) != (self.activation == "topk"):
            raise ValueError("k is given for the activation 'topk', and for no other")
        self._check_shapes()
        if self.centred and (self.b_dec is None or self.W_enc.shape[0] != self.W_dec.shape[1]):
            raise ValueError("centred=True subtracts b_dec from what is read: it needs b_dec, of that width")

    def _check_shapes(self) -> None:
        if self.W_enc.ndim != 2 or self.W_dec.ndim != 2 or self.W_enc.shape[1] != self.W_dec.shape[0]:
            raise ValueError(
                "W_enc must be [d_in feature] and W_dec [feature d_out]; got "
                f"{list(self.W_enc.shape)} and {list(self.W_dec.shape)}"
            )
        wanted = {"b_enc": self.n_features, "threshold": self.n_features, "b_dec": self.W_dec.shape[1]}
        for name, size in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != (size,):
                raise ValueError(f"{name} must be [{size}]; got {list(value.shape)}")
        for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"):
            value = getattr(self, name)
            if value is not None and not torch.isfinite(value).all():
                raise ValueError(f"{name} has a number that is NaN or infinite")

    def __repr__(self) -> str:
        ends = [f"{site} of layer {layer}" for site, layer in (self.reads, self.target)]
        where = ends[0] if self.reads == self.target else " to ".join(ends)
        return f"FeatureDictionary({self.n_features} features, {self.activation}, {where})"

    @property
    def target(self) -> Place:
        """The site and layer that features write."""
        return self.reads if self.writes is None else self.writes

    @property
    def n_features(self) -> int:
        """The number of features."""
        return self.W_enc.shape[1]

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... feature"]:
        """Return the features of activations."""
        if self.centred:
            assert self.b_dec is not None
            x = x - self.b_dec
        pre = x @ self.W_enc
        pre = pre if self.b_enc is None else pre + self.b_enc
        match self.activation:
            case "identity":
                return pre
            case "relu":
                return pre.relu()
            case "jumprelu":
                assert self.threshold is not None
                return pre.relu() * (pre > self.threshold)
            case "topk":
                assert self.k is not None
                best = pre.topk(min(self.k, self.n_features), dim=-1)
                return torch.zeros_like(pre).scatter(-1, best.indices, best.values.relu())

    def decode(self, features: Float[Tensor, "... feature"]) -> Float[Tensor, "... d_out"]:
        """Return the reconstruction."""
        out = features @ self.W_dec
        return out if self.b_dec is None else out + self.b_dec

    def to(self, dtype: torch.dtype, device: torch.device | str) -> FeatureDictionary:
        """Return the dictionary in another data type and on another device."""
        tensors = {
            name: None if (x := getattr(self, name)) is None else x.detach().to(dtype=dtype, device=device)
            for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
        }
        return replace(self, **tensors)


def directions(vectors: Float[Tensor, "feature d"], reads: Place) -> FeatureDictionary:
    """Return directions as a dictionary: probes, steering vectors, or the basis of a DAS subspace.

    Features are the coordinates of the projection onto their span, so that patching all of them is an interchange of
    the subspace; the rest of the activation is the error term. Raises `ValueError` for linearly dependent directions.
    """
    vectors = vectors.detach()
    if vectors.ndim != 2 or not len(vectors) or int(torch.linalg.matrix_rank(vectors.double())) < len(vectors):
        raise ValueError(f"directions must be [feature d] and linearly independent; got {list(vectors.shape)}")
    inverse = torch.linalg.pinv(vectors.double()).to(vectors.dtype)
    return FeatureDictionary(W_enc=inverse, W_dec=vectors, reads=reads, activation="identity")
