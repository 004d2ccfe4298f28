"""Statistics of activations over many prompts: means, and the attention of each head by role.

Reducers for `interp.capturing.reduce`, and the functions of one attention pattern that they average. The statistics
are descriptive (M7; probes/README.md, Battery): attention mass on labels is high for anchors, placeholders and sinks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from interp.sites import ATTENTION_SITES, Site
from interp.tasks import LABEL_ROLES, Prompts, Role

if TYPE_CHECKING:
    import pandas
    from transformer_lens.model_bridge import TransformerBridge

# Site and layer.
Key = tuple[Site, int]
# A row with more than this share of its mass on the first token counts as a sink (Gu et al. 2410.10781).
EPSILON = 0.3


@dataclass(frozen=True, eq=False)
class Averages:
    """Mean activations of groups of positions.

    groups: positions, or values of `Role`.
    values: `[group *site]`, the site's axes after batch and pos.
    n:      `[group]`, the number of activations that each is the mean of.
    """

    groups: tuple[int, ...]
    values: Float[Tensor, "group *site"]
    n: Int[Tensor, " group"]

    def __repr__(self) -> str:
        return f"Averages({len(self.groups)} groups of {int(self.n.sum())} activations, {list(self.values.shape)})"


@dataclass(frozen=True)
class Mean:
    """The mean activation at a site, per role or per position, as `Averages` in float64.

    Any site except pattern and attn_scores. With batches of several lengths, a position past the end of a short batch
    is averaged over the longer ones.
    """

    site: Site
    layer: int
    by: Literal["pos", "role"] = "role"

    def __post_init__(self) -> None:
        if self.by not in ("pos", "role"):
            raise ValueError(f"by must be 'pos' or 'role'; got {self.by!r}")
        if self.site in ATTENTION_SITES:
            raise ValueError(f"{self.site} of different lengths has no mean; use HeadStatistics")

    @property
    def name(self) -> str:
        """The key of the result, such as "mean resid_pre 1 by role"."""
        return f"mean {self.site} {self.layer} by {self.by}"

    def sites(self, model: TransformerBridge) -> Collection[Key]:
        """Return the one site."""
        return [(self.site, self.layer)]

    def add(self, state: dict, model: TransformerBridge, batch: Prompts, activations: Mapping[Key, Tensor]) -> None:
        """Add the sum over prompts of each position to its group. Raises `ValueError` for prompts without roles."""
        if self.by == "role" and batch.role is None:
            raise ValueError("these prompts have no roles; use Mean(..., by='pos')")
        sums = activations[self.site, self.layer].double().sum(dim=0).cpu()
        groups = range(batch.n_pos) if self.by == "pos" else batch.role.tolist()  # type: ignore[union-attr]
        for group, value in zip(groups, sums, strict=True):
            total, n = state.get(group, (0.0, 0))
            state[group] = (total + value, n + len(batch))

    def result(self, state: dict) -> Averages:
        """Return sums divided by counts, groups in order."""
        groups = tuple(sorted(state))
        n = torch.tensor([state[g][1] for g in groups])
        return Averages(groups, torch.stack([state[g][0] / state[g][1] for g in groups]), n)


@dataclass(frozen=True)
class HeadStatistics:
    """The attention of each head, averaged by the role of the destination position.

    Returns a data frame with one row per layer, head, role (`Role.words`) and statistic: its mean `value` over `n`
    rows of patterns (positions of that role, in all prompts, where it is defined; NaN where n is 0). Rows of one
    prompt, and prompts of one model, are not independent: no error bar follows from n.

    Statistics: those of `attention_masses`; `value_share_labels`, see `label_value_share`; and `sink_rate`, the share
    of rows with more than `epsilon` of their mass on the first token (1 at the first token itself).
    """

    epsilon: float = EPSILON

    @property
    def name(self) -> str:
        """The key of the result."""
        return "head statistics"

    def sites(self, model: TransformerBridge) -> Collection[Key]:
        """Return the patterns and values of every layer."""
        sites: tuple[Site, ...] = ("pattern", "v")
        return [(site, layer) for layer in range(model.cfg.n_layers) for site in sites]

    def add(self, state: dict, model: TransformerBridge, batch: Prompts, activations: Mapping[Key, Tensor]) -> None:
        """Add each layer's statistics to the sums of their roles. Raises `ValueError` for prompts without roles."""
        role = require_roles(batch)
        for layer in range(model.cfg.n_layers):
            pattern = activations["pattern", layer].float()
            sizes = value_sizes(activations["v", layer].float(), model.blocks[layer].attn.W_O.detach().float())
            statistics = attention_masses(pattern, batch)
            statistics["value_share_labels"] = label_value_share(pattern, sizes, batch)
            statistics["sink_rate"] = (statistics["first_token"] > self.epsilon).float()
            for statistic, values in statistics.items():
                for one in sorted(set(role.tolist())):
                    rows = rearrange(values[:, :, role == one], "batch head dest -> head (batch dest)").double()
                    total, n = state.get((layer, one, statistic), (0.0, 0))
                    defined = (~rows.isnan()).sum(dim=-1).cpu()
                    state[layer, one, statistic] = (total + rows.nansum(dim=-1).cpu(), n + defined)

    def result(self, state: dict) -> pandas.DataFrame:
        """Return the table."""
        import pandas

        rows = []
        for (layer, role, statistic), (total, n) in sorted(state.items()):
            for head, (value, count) in enumerate(zip((total / n).tolist(), n.tolist(), strict=True)):
                rows.append((layer, head, Role(role).words, statistic, value, count))
        return pandas.DataFrame(rows, columns=["layer", "head", "role", "statistic", "value", "n"])


def attention_masses(
    pattern: Float[Tensor, "batch head dest src"], batch: Prompts
) -> dict[str, Float[Tensor, "batch head dest"]]:
    """Return the attention mass of each row on sets of positions, NaN where a row has no such set. Sets may overlap.

    A position after `===` *cites* the label of its own step at or before it: output step 3 and its label cite output
    label 3 (each digit of a non-aligned sum cites two). A *matching label* is an input label with a token that the
    position cites; where labels repeat (`constant`) there are many.

    - `matching_label`, `after_matching_label`: on matching labels; on the tokens right after them (the bit,
      in aligned parity). For rows that cite a label of the input.
    - `other_labels`: on labels of any role with another token than those cited. For rows that cite one.
    - `labels`: on labels of every kind.
    - `previous_token` (not defined at the first), `first_token`, `itself`.
    """
    device = pattern.device
    n = batch.n_pos
    labels, match, same, cites = (x.to(device) for x in _citations(batch))
    undefined = torch.tensor(torch.nan, dtype=pattern.dtype, device=device)

    def mass(sources: Bool[Tensor, "#batch #dest src"]) -> Float[Tensor, "batch head dest"]:
        return torch.einsum("bhds,bds->bhd", pattern, sources.expand(len(pattern), n, n).to(pattern.dtype))

    def where(defined: Bool[Tensor, "batch dest"], values: Tensor) -> Tensor:
        return torch.where(defined.unsqueeze(1), values, undefined)

    after = pad(match[..., :-1], (1, 0))
    has_match = match.any(dim=-1)
    previous = torch.full_like(pattern[..., 0], torch.nan)
    previous[..., 1:] = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
    return {
        "matching_label": where(has_match, mass(match)),
        "after_matching_label": where(has_match, mass(after)),
        "other_labels": where(cites.expand(len(pattern), n), mass(labels & ~same)),
        "labels": mass(labels.expand(1, n, n)),
        "previous_token": previous,
        "first_token": pattern[..., 0],
        "itself": pattern.diagonal(dim1=-2, dim2=-1),
    }


def _citations(
    batch: Prompts,
) -> tuple[Bool[Tensor, " src"], Bool[Tensor, "batch dest src"], Bool[Tensor, "batch dest src"], Bool[Tensor, " dest"]]:
    """Return labels; matching labels; sources with a token that the destination cites; destinations that cite."""
    role, step, pos = require_roles(batch), batch.step, torch.arange(batch.n_pos)
    step = torch.full_like(role, -1) if step is None else step
    labels = torch.isin(role, torch.tensor(LABEL_ROLES))
    cited_role = torch.full_like(role, int(Role.OUTPUT_LABEL))
    cited_role[(role == Role.ANSWER) | (role == Role.ANSWER_LABEL)] = int(Role.ANSWER_LABEL)
    cites = (role == cited_role[:, None]) & (step == step[:, None]) & (step >= 0) & (pos <= pos[:, None])
    cites &= ~labels[:, None] | (pos == pos[:, None])  # a label cites only itself
    equal = batch.tokens[:, :, None] == batch.tokens[:, None, :]
    same = (cites.float() @ equal.float()) > 0
    return labels, same & (role == Role.INPUT_LABEL), same, cites.any(dim=-1)


def value_sizes(
    v: Float[Tensor, "batch src kv_head d_head"], w_o: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "batch head src"]:
    """Return the norm of v W_O: what each head would write into the residual for a mass of 1 on a source."""
    shared = w_o.shape[0] // v.shape[2]  # query heads that share a key-value head
    # One head at a time: all heads' outputs at once would be the largest tensor of the run.
    return torch.stack([(v[:, :, head // shared] @ w).norm(dim=-1) for head, w in enumerate(w_o)], dim=1)


def label_value_share(
    pattern: Float[Tensor, "batch head dest src"], sizes: Float[Tensor, "batch head src"], batch: Prompts
) -> Float[Tensor, "batch head dest"]:
    """Return the share of the sum over sources of norm(A v W_O) that comes from labels; NaN where that sum is 0.

    Unlike mass, it is near 0 for a sink, whose values are small.
    """
    labels = torch.isin(require_roles(batch), torch.tensor(LABEL_ROLES)).to(sizes)
    return torch.einsum("bhds,bhs,s->bhd", pattern, sizes, labels) / torch.einsum("bhds,bhs->bhd", pattern, sizes)


def require_roles(prompts: Prompts) -> Int[Tensor, " pos"]:
    """Return the roles. Raises `ValueError` for prompts without roles."""
    if prompts.role is None:
        raise ValueError("these statistics are by role, and the prompts have no roles; use prompts of a task")
    return prompts.role
