"""Node attribution: attribution patching and its corrected form AtP*.

Attribution patching (Nanda 2023) multiplies a node's activation in the clean run, less that in the corrupted run, by
the gradient there. AtP* (Kramár et al. 2403.00745) corrects two failures. A saturated softmax has no gradient: for q
and k the pattern is recomputed (section 3.1.1). Direct and indirect effects may cancel in the gradient: it is also
taken with the contribution of each layer dropped (section 3.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, require_gradients
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.pairs import prepare
from interp.circuits.places import Places, PlacesBy
from interp.models.resolve import AnyModel
from interp.patching.editing import Edit, Place, Site, forward_with_edits, read_for_gradient
from interp.patching.metric import Metric, MetricLike
from interp.support.finite import require_finite
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas

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
class NodeScores(Shown):
    """How much the metric rises, to first order, when a node alone turns from corrupted to clean.

    Shapes:
        values:    `[node]`, signed, means over prompts.
        magnitude: `[node]`, the score of AtP*: mean over prompts of the absolute score, averaged over the gradients in
                   which one layer is dropped; None without correction for cancellation.
    """

    nodes: tuple[Node, ...]
    values: Float[Tensor, " node"]
    magnitude: Float[Tensor, " node"] | None
    metric: str

    def __repr__(self) -> str:
        best = ", ".join(f"{node} {score:+.3g}" for node, score in self.top(3))
        return f"NodeScores({len(self.nodes)} nodes, {self.metric}; largest: {best})"

    @property
    def by_site(self) -> dict[str, Float[Tensor, "layer head"]]:
        """The signed scores of heads by site, summed over places; k and v have key-value heads."""
        tables: dict[str, Tensor] = {}
        for site in dict.fromkeys(node.site for node in self.nodes if node.head is not None):
            own = [(node, value) for node, value in zip(self.nodes, self.values, strict=True) if node.site == site]
            shape = [1 + max(index) for index in zip(*((node.layer, node.head or 0) for node, _ in own), strict=True)]
            tables[site] = torch.zeros(shape, dtype=self.values.dtype)
            for node, value in own:
                tables[site][node.layer, node.head] += value
        return tables

    def top(self, k: int = 10) -> list[tuple[Node, float]]:
        """Return the k nodes with the largest magnitude (else absolute score), with their signed scores."""
        size = self.values.abs() if self.magnitude is None else self.magnitude
        order = size.argsort(descending=True, stable=True)[:k].tolist()
        return [(self.nodes[i], float(self.values[i])) for i in order]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per node: site, layer, head, place, score, magnitude."""
        import pandas

        data = pandas.DataFrame(
            [(n.site, n.layer, n.head, n.place) for n in self.nodes], columns=["site", "layer", "head", "place"]
        )
        magnitude = [None] * len(self.nodes) if self.magnitude is None else self.magnitude.tolist()
        return data.assign(score=self.values.tolist(), magnitude=magnitude)


@exclusive
def node_scores(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    saturation: bool = True,
    cancellation: bool = True,
    places: Places | PlacesBy = "anywhere",
) -> NodeScores:
    """Return AtP* scores of every node, with gradients of the corrupted run.

    `saturation` scores q and k by the pattern that they would give. `cancellation` adds `NodeScores.magnitude`, with
    one backward pass per layer. With both off this is plain attribution patching. Positions of a place turn clean
    together. Raises as `edge_scores`, and `ValueError` for `cancellation` in a model with one layer.

    >>> node_scores(run, clean, counterfactual.redraw(clean, 1), logit_diff(clean), places="role").top(3)
    """
    require_gradients("node_scores")
    prepared = prepare(model, clean, corrupted, metric, places)
    edge_model, tokens, metric = prepared.edge_model, prepared.tokens, prepared.metric
    n_layers = len(edge_model.anatomy.blocks)
    if cancellation and n_layers < 2:
        raise ValueError("cancellation=True drops one layer of several; this model has one layer")
    signed, sizes = [], []
    for rows in edge_model.chunks(len(tokens[0])):
        other, own = _record(edge_model, tokens[0][rows]), _record(edge_model, tokens[1][rows])
        signed.append(_scores(edge_model, own, other, _gradients(edge_model, own, metric, rows, None), saturation))
        if cancellation:
            dropped = [_gradients(edge_model, own, metric, rows, layer) for layer in range(n_layers)]
            found = [_scores(edge_model, own, other, g, saturation).abs() for g in dropped]
            sizes.append(torch.stack(found).sum(dim=0) / (n_layers - 1))
    nodes = tuple(
        Node(site, layer, head, place)
        for site, layer, heads in _sites(edge_model)
        for place in edge_model.places.names
        for head in heads
    )
    magnitude = require_finite(torch.cat(sizes, dim=1), "the magnitude of a node").mean(dim=1) if cancellation else None
    values = require_finite(torch.cat(signed, dim=1), "the score of a node").mean(dim=1)
    return NodeScores(nodes, values, magnitude, metric.name)


Values = dict[Place, Tensor]
_START: Place = ("resid_pre", 0)
# What a layer adds to the residual stream.
_ADDED: tuple[Site, ...] = ("attn_out", "mlp_out")


def _sites(edge_model: EdgeModel) -> list[tuple[NodeSite, int, range | tuple[None]]]:
    a, found = edge_model.anatomy, []
    for layer in range(len(a.blocks)):
        heads = {"q": a.n_heads, "k": a.n_kv_heads, "v": a.n_kv_heads, "z": a.n_heads}
        found += [(site, layer, range(n)) for site, n in heads.items()] + [("mlp_out", layer, (None,))]
    return found


@torch.no_grad()
def _record(edge_model: EdgeModel, tokens: Tensor) -> Values:
    """Return the value at every site of an unedited run, and the residual at the start."""
    resid = edge_model.anatomy.embed(tokens.to(edge_model.anatomy.device))
    return {_START: resid} | _forward(edge_model, resid, None)[1]


def _forward(edge_model: EdgeModel, resid: Tensor, dropped: int | None) -> tuple[Tensor, Values]:
    """Return the last residual and the values of all sites; no gradient passes through what `dropped` adds."""
    edits: dict[Place, Edit] = {}
    if dropped is not None:
        edits = {(site, dropped): lambda x, _: x.detach() for site in _ADDED}
    keep: list[Place] = [(site, i) for i in range(len(edge_model.anatomy.blocks)) for site in (*NODE_SITES, "pattern")]
    return forward_with_edits(edge_model.anatomy, resid, edits=edits, keep=keep)


def _gradients(edge_model: EdgeModel, own: Values, metric: Metric, rows: Tensor, dropped: int | None) -> Values:
    """Return the gradient of the metric at every site; 0 at those of the dropped layer."""
    with torch.enable_grad():
        final, values = _forward(edge_model, own[_START].detach().requires_grad_(), dropped)
        total = read_for_gradient(edge_model.anatomy, final, metric, rows)
        with_gradient = {key: value for key, value in values.items() if value.requires_grad}
        found = torch.autograd.grad(total, list(with_gradient.values()), allow_unused=True)
    gradients = dict(zip(with_gradient, found, strict=True))
    return {key: torch.zeros_like(v) if (g := gradients.get(key)) is None else g for key, v in values.items()}


@torch.no_grad()
def _scores(
    edge_model: EdgeModel, own: Values, other: Values, gradients: Values, saturation: bool
) -> Float[Tensor, "node row"]:
    """Return scores of all nodes per prompt, in the order of `_sites`, then places, then heads."""
    a, index = edge_model.anatomy, edge_model.places.index.to(own[_START].device)
    inside = torch.stack([index == place for place in range(len(edge_model.places.names))]).to(a.dtype)  # [place pos]
    positions = torch.arange(len(index), device=index.device)
    found = []
    for site, layer, _ in _sites(edge_model):
        key: Place = (site, layer)
        if saturation and site in ("q", "k"):
            found.append(_through_softmax(edge_model, own, other, gradients, site, layer, inside, positions))
            continue
        product = (other[key] - own[key]) * gradients[key]
        per_head = product.sum(dim=-1) if site != "mlp_out" else product.sum(dim=-1, keepdim=True)
        found.append(torch.einsum("gp,rph->ghr", inside, per_head))
    return torch.cat([f.flatten(0, 1) for f in found]).double().cpu()


def _through_softmax(
    edge_model: EdgeModel,
    own: Values,
    other: Values,
    gradients: Values,
    site: str,
    layer: int,
    inside: Tensor,
    positions: Tensor,
) -> Float[Tensor, "place head row"]:
    """Return how the pattern would change, times its gradient."""
    a, block = edge_model.anatomy, edge_model.anatomy.blocks[layer]
    pattern, gradient = own["pattern", layer], gradients["pattern", layer]
    if site == "q":  # a query changes its own row only
        changed = a.pattern(block, other["q", layer], own["k", layer], positions, positions)
        return torch.einsum("gd,rhds->ghr", inside, (changed - pattern) * gradient)
    found = []
    for here in inside:
        k = torch.where(here.view(-1, 1, 1) > 0, other["k", layer], own["k", layer])
        change = ((a.pattern(block, own["q", layer], k, positions, positions) - pattern) * gradient).sum(dim=(-2, -1))
        found.append(change.unflatten(1, (a.n_kv_heads, -1)).sum(dim=-1).T)  # query heads that share the key
    return torch.stack(found)
