"""How much does each part matter? Attribution of nodes, mended where a gradient deceives.

Attribution patching (Nanda 2023) multiplies what a node gives in the clean run less what it gives in the corrupted
one by the gradient there. It is blind in two ways, which AtP* mends (Kramár et al. 2403.00745): a *saturated* softmax
has no gradient, so for q and k the pattern is computed anew (section 3.1.1); and direct and indirect effects may
*cancel* in the gradient, so the gradient is also taken with each layer's own contribution dropped (3.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.edge_forward import Passing
from interp.circuits.graph import Places, Prompts
from interp.circuits.scoring import prepare
from interp.patching.editing import Edit, Place, Site, forward_with_edits, read_for_gradient
from interp.patching.metrics import Metric
from interp.support.finite import require_finite

if TYPE_CHECKING:
    import pandas
    from transformer_lens.model_bridge import TransformerBridge

NodeSite = Literal["q", "k", "v", "z", "mlp_out"]
NODE_SITES: tuple[NodeSite, ...] = get_args(NodeSite)


@dataclass(frozen=True)
class Node:
    """q, k, v or z of a head (k and v of a key-value head), or the output of an MLP, at the positions of a place.

    >>> str(Node("z", 1, 2, "output label"))
    'L1H2 z at output label'
    """

    site: NodeSite
    layer: int
    head: int | None
    place: str

    def __str__(self) -> str:
        name = f"L{self.layer} MLP" if self.head is None else f"L{self.layer}H{self.head} {self.site}"
        return f"{name} at {self.place}"


@dataclass(frozen=True, eq=False)
class NodeScores:
    """What each node is worth: how much the metric rises, to first order, when the node alone turns clean.

    Shapes:
        values:    `[node]`, signed, means over prompts.
        magnitude: `[node]`, AtP*'s own score: mean over prompts of the absolute score, averaged over the gradients in
                   which one layer is dropped; None unless cancellation was mended.
    """

    nodes: tuple[Node, ...]
    values: Float[Tensor, " node"]
    magnitude: Float[Tensor, " node"] | None
    metric: str

    def top(self, k: int = 10) -> list[tuple[Node, float]]:
        """The k nodes with the largest magnitude (or absolute score), with their signed scores."""
        size = self.values.abs() if self.magnitude is None else self.magnitude
        order = size.argsort(descending=True, stable=True)[:k].tolist()
        return [(self.nodes[i], float(self.values[i])) for i in order]

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a node: site, layer, head, place, score, magnitude."""
        import pandas

        data = pandas.DataFrame(
            [(n.site, n.layer, n.head, n.place) for n in self.nodes], columns=["site", "layer", "head", "place"]
        )
        magnitude = [None] * len(self.nodes) if self.magnitude is None else self.magnitude.tolist()
        return data.assign(score=self.values.tolist(), magnitude=magnitude)


def node_scores(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric,
    saturation: bool = True,
    cancellation: bool = True,
    places: Places | Literal["anywhere", "role"] = "anywhere",
) -> NodeScores:
    """AtP* of every node, with gradients of the corrupted run. Both off: plain attribution patching.

    `saturation`: q and k by the pattern that they would make, `cancellation`: see `NodeScores.magnitude` (a backward
    pass for each layer). Positions of a place turn clean together. Raises `ValueError` as `edge_scores` does, and for
    `cancellation` in a model of one layer.

    >>> node_scores(run.raw, clean, counterfactual.redraw(clean, 1), logit_diff(clean), places="role").top(3)
    """
    passing, tokens = prepare(raw_model, clean, corrupted, metric, places)
    n_layers = len(passing.anatomy.blocks)
    if cancellation and n_layers < 2:
        raise ValueError("cancellation is mended by dropping one layer of several; this model has one")
    signed, sizes = [], []
    for rows in passing.rows(len(tokens[0])):
        other, own = _record(passing, tokens[0][rows]), _record(passing, tokens[1][rows])
        signed.append(_scores(passing, own, other, _gradients(passing, own, metric, rows, None), saturation))
        if cancellation:
            dropped = [_gradients(passing, own, metric, rows, layer) for layer in range(n_layers)]
            found = [_scores(passing, own, other, g, saturation).abs() for g in dropped]
            sizes.append(torch.stack(found).sum(dim=0) / (n_layers - 1))
    nodes = tuple(
        Node(site, layer, head, place)
        for site, layer, heads in _sites(passing)
        for place in passing.places.names
        for head in heads
    )
    magnitude = require_finite(torch.cat(sizes, dim=1), "the size of a node").mean(dim=1) if cancellation else None
    values = require_finite(torch.cat(signed, dim=1), "the score of a node").mean(dim=1)
    return NodeScores(nodes, values, magnitude, metric.name)


Values = dict[Place, Tensor]
_START: Place = ("resid_pre", 0)
# What a layer adds to the residual stream.
_ADDED: tuple[Site, ...] = ("attn_out", "mlp_out")


def _sites(passing: Passing) -> list[tuple[NodeSite, int, range | tuple[None]]]:
    a, found = passing.anatomy, []
    for layer in range(len(a.blocks)):
        heads = {"q": a.n_heads, "k": a.n_kv_heads, "v": a.n_kv_heads, "z": a.n_heads}
        found += [(site, layer, range(n)) for site, n in heads.items()] + [("mlp_out", layer, (None,))]
    return found


@torch.no_grad()
def _record(passing: Passing, tokens: Tensor) -> Values:
    """What every site gives in an ordinary run, and the residual at the start."""
    resid = passing.anatomy.embed(tokens.to(passing.anatomy.device))
    return {_START: resid} | _forward(passing, resid, None)[1]


def _forward(passing: Passing, resid: Tensor, dropped: int | None) -> tuple[Tensor, Values]:
    """The last residual, and the values of all sites; no gradient comes through what the dropped layer adds."""
    edits: dict[Place, Edit] = {}
    if dropped is not None:
        edits = {(site, dropped): lambda x, _: x.detach() for site in _ADDED}
    keep: list[Place] = [(site, i) for i in range(len(passing.anatomy.blocks)) for site in (*NODE_SITES, "pattern")]
    return forward_with_edits(passing.anatomy, resid, edits=edits, keep=keep)


def _gradients(passing: Passing, own: Values, metric: Metric, rows: Tensor, dropped: int | None) -> Values:
    """The metric's gradient at every site; 0 at those of the dropped layer."""
    with torch.enable_grad():
        final, values = _forward(passing, own[_START].detach().requires_grad_(), dropped)
        total = read_for_gradient(passing.anatomy, final, metric, rows)
        telling = {key: value for key, value in values.items() if value.requires_grad}
        found = torch.autograd.grad(total, list(telling.values()), allow_unused=True)
    gradients = dict(zip(telling, found, strict=True))
    return {key: torch.zeros_like(v) if (g := gradients.get(key)) is None else g for key, v in values.items()}


@torch.no_grad()
def _scores(
    passing: Passing, own: Values, other: Values, gradients: Values, saturation: bool
) -> Float[Tensor, "node row"]:
    """Scores of all nodes for each prompt, in the order of `_sites`, then places, then heads."""
    a, index = passing.anatomy, passing.places.index.to(own[_START].device)
    inside = torch.stack([index == place for place in range(len(passing.places.names))]).to(a.dtype)  # [place pos]
    positions = torch.arange(len(index), device=index.device)
    found = []
    for site, layer, _ in _sites(passing):
        key: Place = (site, layer)
        if saturation and site in ("q", "k"):
            found.append(_through_softmax(passing, own, other, gradients, site, layer, inside, positions))
            continue
        product = (other[key] - own[key]) * gradients[key]
        per_head = product.sum(dim=-1) if site != "mlp_out" else product.sum(dim=-1, keepdim=True)
        found.append(torch.einsum("gp,rph->ghr", inside, per_head))
    return torch.cat([f.flatten(0, 1) for f in found]).double().cpu()


def _through_softmax(
    passing: Passing,
    own: Values,
    other: Values,
    gradients: Values,
    site: str,
    layer: int,
    inside: Tensor,
    positions: Tensor,
) -> Float[Tensor, "place head row"]:
    """How the pattern itself would change, times its gradient."""
    a, block = passing.anatomy, passing.anatomy.blocks[layer]
    pattern, pull = own["pattern", layer], gradients["pattern", layer]
    if site == "q":  # a query changes its own row only
        fresh = a.pattern(block, other["q", layer], own["k", layer], positions, positions)
        return torch.einsum("gd,rhds->ghr", inside, (fresh - pattern) * pull)
    found = []
    for here in inside:
        k = torch.where(here.view(-1, 1, 1) > 0, other["k", layer], own["k", layer])
        change = ((a.pattern(block, own["q", layer], k, positions, positions) - pattern) * pull).sum(dim=(-2, -1))
        found.append(change.unflatten(1, (a.n_kv_heads, -1)).sum(dim=-1).T)  # query heads that share the key
    return torch.stack(found)
