"""Interchanges: sites whose values are taken from runs on other prompts."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from interp.arguments import PromptsLike
from interp.patching.knockouts import Knockout
from interp.places import At
from interp.sites import HEAD_SITES, Site, require_site

INTERCHANGE_SITES: tuple[Site, ...] = ("resid_pre", "q", "k", "v", "attn_scores", "z", "attn_out", "mlp_out")


@dataclass(frozen=True, eq=False)
class Interchange:
    """A site whose values are taken from the run on `source`. With the base as source, the site is frozen.

    `at`: positions, as a mask `[batch pos]` or `[1 pos]` or as a role, span or index (None: all). For "attn_scores"
    (scores before the softmax, causal mask included) they are destination positions. `layers`, `heads`: None for all, a
    number for one; k and v have key-value heads.

    `source_at`, `source_layer`: where in the source values are taken from, if from elsewhere (Patchscopes, 2401.06102):
    as many positions as `at` has, paired in rising order, and one layer. The source may then have another layout.
    """

    site: Site
    source: PromptsLike
    at: Bool[Tensor, "#batch pos"] | At | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    source_at: At | None = None
    source_layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "heads"):
            if isinstance(one := getattr(self, name), int):
                object.__setattr__(self, name, (one,))
        require_site(self.site, INTERCHANGE_SITES)
        if self.moves and self.site == "attn_scores":
            raise ValueError("attn_scores cannot be taken from other positions or layers; use another site")
        if isinstance(self.at, Tensor) and not self.at.any():
            raise ValueError(f"the interchange of {self.site} has no position: nothing would change")
        if self.layers is not None and not self.layers:
            raise ValueError(f"the interchange of {self.site} has no layer; None means all")
        with_heads = [site for site in INTERCHANGE_SITES if site in HEAD_SITES]
        if self.heads is not None and (not self.heads or self.site not in with_heads):
            raise ValueError(
                f"heads must be one or more heads of {', '.join(with_heads)}; got {self.heads} of {self.site}"
            )

    @property
    def moves(self) -> bool:
        """Whether values are taken from other positions, or another layer, than they are put at."""
        return self.source_at is not None or self.source_layer is not None

    def __repr__(self) -> str:
        at = "a mask" if isinstance(self.at, Tensor) else repr(self.at)
        return f"Interchange({self.site!r}, at={at}, layers={self.layers}, heads={self.heads})"


Intervention = Interchange | Knockout


def whole_run(source: PromptsLike) -> Interchange:
    """Return the interchange that makes a run that of `source` itself: what enters its first layer is the source's."""
    return Interchange("resid_pre", source, layers=(0,))
