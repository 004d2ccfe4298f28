"""Edge attribution: scores of all edges from the gradients of one or a few runs.

Edge attribution patching (EAP, Syed et al. 2310.10348) multiplies what an edge carries in the clean run, less what it
carries in the corrupted run, by the gradient of the metric at its reader. EAP with integrated gradients (EAP-IG, Hanna
et al. 2403.17806) averages the gradient over a path between the two runs. It is not blind to saturation, and its
scores add up to the difference of the metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, require_gradients
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.pairs import Progress, prepare
from interp.circuits.places import Places, PlacesBy
from interp.circuits.reader_gradients import Path, ReaderGradients
from interp.circuits.scores import EdgeScores
from interp.models.resolve import AnyModel
from interp.patching.editing import Place, measure
from interp.patching.metric import MetricLike
from interp.support.finite import require_finite

Method = Literal["eap", "eap-clean", "eap-ig-inputs", "eap-ig-activations", "eap-ig-writers"]
METHODS: tuple[Method, ...] = get_args(Method)
# Where the runs of "eap-ig-inputs" stand on the path.
Points = Literal["adaptive", "even"]


@exclusive
def edge_scores(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    method: Method = "eap-ig-inputs",
    n: int = 32,
    places: Places | PlacesBy = "anywhere",
    progress: Progress[Tensor] = iter,
    points: Points = "adaptive",
) -> EdgeScores:
    """Return the score of every edge for a batch of pairs. Key-value heads may be shared.

    - "eap": gradients of the corrupted run (TransformerLens's `attribution_patch`); "eap-clean": of the clean run.
    - "eap-ig-inputs": gradients averaged over `n` points between the embeddings of the two runs: the middles of even
      intervals, or for prompts where these do not add up, `n` more points where the metric changes. The scores of the
      embedding's edges add up to the difference of the metric, up to `details["gap"]`. Where the gap is not small,
      take more points or exact scores. With `points="even"` the points are 1/n, 2/n, ..., 1, as in EAP-IG's code: the
      numbers of that code, with a larger error of integration.
    - "eap-ig-activations": Hanna et al.'s variant on activations. One at a time, the embedding, the heads of a layer
      together, and an MLP are moved from their corrupted to their clean output within the clean run, in `n` even
      steps. The gradients of all these runs are averaged. `n (2 n_layers + 1)` runs.
    - "eap-ig-writers": as "eap-ig-activations", but the gradients of a writer's runs score its own edges only, and
      points are those of "eap-ig-inputs". The scores of a group of writers add up to the loss when that group
      alone is corrupted. Same number of runs, or twice that where the metric jumps.

    `places` tells edges at different positions apart, see `places_of`. The model is left as it was: no gradient is
    stored on its parameters. Raises `ValueError` for prompts of two layouts, an unknown method, even points of another
    method than "eap-ig-inputs", a metric without a gradient (accuracy), scores that are not finite, autocast and
    inference mode; `RuntimeError` where the model taken apart differs from the raw model on these prompts.

    >>> scores = edge_scores(run, clean, counterfactual.redraw(clean, 1), logit_diff(clean), places="role")
    >>> scores.top(3)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if n < 1:
        raise ValueError(f"n, the points between the two runs, must be at least 1; got {n}")
    if points not in get_args(Points):
        raise ValueError(f"points must be one of {', '.join(get_args(Points))}; got {points!r}")
    if points == "even" and method != "eap-ig-inputs":
        raise ValueError(f"even points are an option of 'eap-ig-inputs'; the method is {method!r}")
    require_gradients("edge_scores")
    prepared = prepare(model, clean, corrupted, metric, places)
    edge_model, tokens, metric = prepared.edge_model, prepared.tokens, prepared.metric
    graph = edge_model.graph
    values = torch.zeros(graph.possible.shape, dtype=torch.float64)
    totals = torch.zeros(2, dtype=torch.float64)
    for rows in progress(list(edge_model.chunks(len(tokens[0]), copies=2.5))):
        ends, outputs = zip(*(edge_model.full_run(t[rows]) for t in tokens), strict=True)
        totals += torch.stack([measure(edge_model.anatomy, end, metric, rows).double().sum() for end in ends])
        difference = require_finite(outputs[0] - outputs[1], "a difference of writers' outputs", rows, axis=1)
        gradients = ReaderGradients(edge_model, metric, rows)
        values += _chunk_scores(gradients, outputs[0], outputs[1], difference, method, n, points)
    values, (clean_mean, corrupted_mean) = values / len(tokens[0]), (totals / len(tokens[0])).tolist()
    values = values.masked_fill(~graph.possible, 0.0).to(torch.promote_types(edge_model.anatomy.dtype, torch.float32))
    details: dict = {} if "ig" not in method else {"n": n}
    if points == "even":
        details["points"] = points
    if method == "eap-ig-inputs":
        details["gap"] = float(values[:, :, 0].double().sum() - (clean_mean - corrupted_mean))
    return EdgeScores(graph, values, method, metric.name, clean=clean_mean, corrupted=corrupted_mean, details=details)


def _chunk_scores(
    gradients: ReaderGradients,
    clean: Tensor,
    corrupted: Tensor,
    difference: Tensor,
    method: Method,
    n: int,
    points: Points,
) -> Float[Tensor, "place reader writer"]:
    """Return scores summed over the prompts of a chunk, from the writers' outputs `[writer row pos d_model]`."""
    edge_model = gradients.edge_model
    match method:
        case "eap" | "eap-clean":
            return _product(edge_model, difference, gradients.of_run((corrupted if method == "eap" else clean)[0]))
        case "eap-ig-inputs":
            average = gradients.even if points == "even" else gradients.integrated
            integrated = average(n, 0, _line(corrupted[0], difference[0]))
            return _product(edge_model, difference, integrated)
        case "eap-ig-activations":
            return _product(edge_model, difference, _mean_over_writers(gradients, clean, difference, n))
        case "eap-ig-writers":
            values = torch.zeros(edge_model.graph.possible.shape, dtype=torch.float64)
            for writers, layer, path in _paths(edge_model, clean, difference):
                integrated = gradients.integrated(n, layer, path)
                values[:, :, writers] += _product(edge_model, difference[writers], integrated)
            return values


def _line(start: Tensor, change: Tensor) -> Path:
    return lambda fraction: (start + fraction * change, None)


def _writer_groups(edge_model: EdgeModel) -> Iterator[tuple[slice, Place | None]]:
    """Iterate over the writers that are moved together, each with the site of their summed output (None: start)."""
    yield slice(0, 1), None
    for layer in range(len(edge_model.anatomy.blocks)):
        heads = slice(edge_model.writers_before(layer), edge_model.writers_before(layer + 1) - 1)
        yield heads, ("attn_out", layer)
        yield slice(heads.stop, heads.stop + 1), ("mlp_out", layer)


def _mean_over_writers(
    gradients: ReaderGradients, clean: Tensor, difference: Tensor, n: int
) -> Float[Tensor, "reader row pos d_model"]:
    """Average gradients over all groups of writers and n even steps, at fractions 1/n to 1 (Hanna et al. 2403.17806).

    The moved output is a constant: no gradient passes through it to the group's own readers.
    """
    edge_model, total, runs = gradients.edge_model, None, 0
    for writers, place in _writer_groups(edge_model):
        own, change = clean[writers].sum(dim=0), difference[writers].sum(dim=0)
        if place is not None and place[0] == "attn_out":
            own = own + edge_model.biases[place[1]]
        for step in range(1, n + 1):
            value = own - (1 - step / n) * change
            start, constants = (value, {}) if place is None else (clean[0], {place: value})
            part = gradients.of_run(start, constants=constants)
            total = part if total is None else total.add_(part)
            runs += 1
    assert total is not None
    return total / runs


def _paths(edge_model: EdgeModel, clean: Tensor, difference: Tensor) -> Iterator[tuple[slice, int, Path]]:
    """Iterate over the writers that are moved together, the layer before which their run starts, and its path.

    A point of a path is the residual before that layer and, where heads are moved, what the layer's attention adds.
    """
    for writers, place in _writer_groups(edge_model):
        change = difference[writers].sum(dim=0)
        if place is not None and place[0] == "attn_out":
            layer = place[1]
            adds = clean[writers].sum(dim=0) + edge_model.biases[layer]
            resid = edge_model.resid_before(clean, layer)
            yield writers, layer, lambda f, resid=resid, adds=adds, change=change: (resid, adds - (1 - f) * change)
        else:
            layer = 0 if place is None else place[1] + 1
            yield writers, layer, _line(edge_model.resid_before(clean, layer) - change, change)


def _product(edge_model: EdgeModel, difference: Tensor, gradients: Tensor) -> Float[Tensor, "place reader writer"]:
    """Sum difference times gradient over prompts, positions of a place and dimensions."""
    values = []
    for place in range(len(edge_model.places.names)):
        at = (edge_model.places.index == place).nonzero().flatten().to(difference.device)
        values.append(gradients[:, :, at].flatten(1) @ difference[:, :, at].flatten(1).T)
    return torch.stack(values).double().cpu()
