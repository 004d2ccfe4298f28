"""A feature dictionary at its site in a model: what it reads there, and where it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries import FeatureDictionary
from interp.models.anatomy import Anatomy
from interp.patching.editing import Place, forward_with_edits
from interp.support.finite import require_finite
from interp.tasks.limits import is_index

# Features that are patched one by one; those of a tuple together. None is all of them together.
Features = int | Sequence[int | tuple[int, ...]] | None


@dataclass(frozen=True, eq=False)
class FeatureRun:
    """Features of a run `[row pos feature]`, and resid_pre of the layer that the dictionary writes to."""

    encoded: Tensor
    start: Tensor


class FeatureSite:
    """A dictionary at its site in a model. Raises `ValueError` where it does not fit."""

    def __init__(self, anatomy: Anatomy, dictionary: FeatureDictionary) -> None:
        self.anatomy, self.dictionary = anatomy, dictionary.to(anatomy.dtype, anatomy.device)
        self.source, self.target = dictionary.reads, dictionary.target
        n_layers = len(anatomy.blocks)
        for what, (site, layer) in (("reads", self.source), ("writes", self.target)):
            if not is_index(layer, n_layers):
                raise ValueError(f"the dictionary {what} {site} of layer {layer}; layers are 0 to {n_layers - 1}")
        self.start: Place = ("resid_pre", self.target[1])
        zero = torch.zeros(1, 1, dtype=torch.long, device=anatomy.device)
        _, kept = forward_with_edits(anatomy, anatomy.embed(zero).detach(), keep={self.source, self.target})
        for what, place, size in (
            ("reads", self.source, dictionary.W_enc.shape[0]),
            ("writes", self.target, dictionary.W_dec.shape[1]),
        ):
            if (width := self.flat(kept[place]).shape[-1]) != size:
                raise ValueError(f"the dictionary {what} {size} numbers; {place[0]} of this model has {width}")

    def flat(self, value: Tensor) -> Float[Tensor, "row pos width"]:
        """Return a site's value with its heads side by side."""
        return value.flatten(2)

    def read(self, tokens: Tensor) -> tuple[FeatureRun, Tensor]:
        """Return the features of a run, and its residual after the last layer."""
        resid = self.anatomy.embed(tokens.to(self.anatomy.device))
        final, kept = forward_with_edits(self.anatomy, resid, keep={self.source, self.start})
        encoded = self.dictionary.encode(self.flat(kept[self.source]))
        return FeatureRun(require_finite(encoded, "a feature", axis=0), kept[self.start]), final

    def groups(self, features: Features) -> dict[str | int, Tensor]:
        """Return the features that are changed together, by the entry's name."""
        n = self.dictionary.n_features
        if features is None:
            return {"all": torch.arange(n)}
        listed = [features] if isinstance(features, int) else list(features)
        groups: dict[str | int, Tensor] = {}
        for one in listed:
            group = (one,) if isinstance(one, int) else tuple(sorted(one))
            if not group or (bad := [f for f in group if not 0 <= f < n]):
                raise ValueError(f"there is no feature {bad[0] if group else ''}; features run from 0 to {n - 1}")
            groups[group[0] if len(group) == 1 else "+".join(map(str, group))] = torch.tensor(group)
        if not groups or len(groups) < len(listed):
            raise ValueError("give one or more features, each once; None is all of them together")
        return groups
