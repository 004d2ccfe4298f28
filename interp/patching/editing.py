"""What does a whole run give when some of its steps are edited?

The slow, explicit pass over a model taken apart: all positions, one layer after the other, with a function
at any named site. Knockouts and path patching say what they mean with it; sweeps of single sites belong to
the engine, which skips most of this work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import TOLERANCE, Anatomy
from interp.patching.metrics import Metric
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Batch, Role

# q and k are before rotation; k and v have the key-value heads; "mlp_in" is what the MLP alone reads. Where there is a
# key sink, "pattern" is without its column, and "scores" are less its logit: they alone decide the pattern.
Site = Literal["resid_pre", "q", "k", "v", "scores", "pattern", "z", "attn_out", "mlp_in", "mlp_out"]
SITES: tuple[Site, ...] = get_args(Site)
Place = tuple[Site, int]
# Takes the value and what this layer has computed so far, and returns a new value of the same shape.
Edit = Callable[[Tensor, Mapping[Site, Tensor]], Tensor]
# A role, a (role, step) pair, a tuple of these, or a tuple of positions.
At = Role | tuple[int | tuple[Role, int], ...]
# Of the budget, for what one chunk of prompts holds: 256 MiB of a GiB.
SHARE = 1 / 4
# How much worse than the raw model's own rounding another order of operations may be.
ROUNDING = 10


def forward_with_edits(
    anatomy: Anatomy,
    resid: Float[Tensor, "row pos d_model"],
    start: int = 0,
    stop: int | None = None,
    edits: Mapping[Place, Edit] | None = None,
    keep: Collection[Place] = (),
) -> tuple[Float[Tensor, "row pos d_model"], dict[Place, Tensor]]:
    """The residual before layer `stop` (by default after the last), from that before layer `start`, and what was kept.

    `resid` is resid_pre of layer `start`. An edit at resid_pre, attn_out or mlp_out changes the residual
    stream; one at mlp_in reaches the MLP alone. What is kept is the value after its edit. Gradients flow unless the
    caller forbids it.
    Raises `ValueError` for a place to edit or keep that the pass does not come to.

    >>> resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), keep=[("pattern", 1)])
    """
    stop = len(anatomy.blocks) if stop is None else stop
    edits = dict(edits or {})
    for site, layer in (*edits, *keep):
        if site not in SITES or not start <= layer < stop:
            raise ValueError(f"no {site!r} in layer {layer}; sites: {', '.join(SITES)}; layers {start} to {stop - 1}")
    kept: dict[Place, Tensor] = {}
    positions = torch.arange(resid.shape[-2], device=resid.device)
    bias = anatomy.bias(positions, positions)
    for layer in range(start, stop):
        block, step = anatomy.blocks[layer], _Layer(layer, edits, set(keep), kept)
        resid = step.at("resid_pre", resid)
        q, k, v = (step.at(site, x) for site, x in zip(("q", "k", "v"), block.project(resid), strict=True))
        turned = anatomy.rotate(q, positions), anatomy.expand_heads(anatomy.rotate(k, positions))
        scores = torch.einsum("...dhe,...she->...hds", *turned) * anatomy.scale + bias
        sink = anatomy.sink(block, turned[0], positions)
        # Less the sink's logit, so that whoever sets the scores sets the pattern; back up, to round as the model does.
        scores = step.at("scores", scores) if sink is None else step.at("scores", scores - sink) + sink
        pattern = step.at("pattern", anatomy.softmax(scores, sink))
        z = step.at("z", anatomy.mix(pattern, v))
        mid = resid + step.at("attn_out", block.attn_out(z))
        mlp_in = step.at("mlp_in", resid if block.parallel else mid)
        resid = mid + step.at("mlp_out", block.mlp_out(mlp_in))
    assert not edits, f"edits that never fired: {list(edits)}"
    return resid, kept


class _Layer:
    """One layer of one pass: applies each edit once, and remembers."""

    def __init__(self, layer: int, edits: dict[Place, Edit], keep: set[Place], kept: dict[Place, Tensor]) -> None:
        self.layer, self.edits, self.keep, self.kept = layer, edits, keep, kept
        self.seen: dict[Site, Tensor] = {}

    def at(self, site: Site, value: Tensor) -> Tensor:
        edit = self.edits.pop((site, self.layer), None)
        if edit is not None:
            edited = edit(value, self.seen)
            assert edited.shape == value.shape, f"an edit of {site} changed its shape"
            assert edited is not value, f"an edit of {site} must return a new value"
            value = edited
        self.seen[site] = value
        if (site, self.layer) in self.keep:
            self.kept[site, self.layer] = value
        return value


def read(anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor) -> Tensor:
    """The metric `[row]` of prompts numbered `rows`, from the residual after the last layer, with its gradient.

    Raises `ValueError` where it is NaN or infinite, naming the prompt.
    """
    logits = anatomy.unembed(resid[:, metric.positions.to(resid.device)])
    # A difference of two logits needs more digits than half precision has.
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return require_finite(metric.compute(logits, rows), metric.name, rows)


@torch.no_grad()
def measure(anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor) -> Tensor:
    """As `read`, on the CPU and without a gradient."""
    return read(anatomy, resid, metric, rows).cpu()


def read_for_gradient(
    anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor
) -> Float[Tensor, ""]:
    """The sum of `read` over prompts. Raises `ValueError` for a metric that has no gradient."""
    total = read(anatomy, resid, metric, rows).sum()
    if not total.requires_grad:
        raise ValueError(f"{metric.name} has no gradient; use logit_diff, margin, probability or kl")
    return total


@torch.no_grad()
def difference_from_raw(anatomy: Anatomy, tokens: Tensor, resid: Tensor, metric: Metric) -> float:
    """Largest difference of the unedited pass from the raw model's logits where the metric reads, in their spread.

    `tokens` are the first prompts.

    Raises `RuntimeError` where it is too large to be rounding: where the pass is further from the raw model in
    float64 than `ROUNDING` times the raw model itself in float32.
    """
    raw: Any = anatomy.raw
    read = metric.positions.to(resid.device)
    expected = raw(tokens.to(resid.device), use_cache=False, logits_to_keep=read).logits
    require_finite(expected, "a logit of the model", axis=0)
    found = float((anatomy.unembed(resid[:, read]) - expected).abs().max() / expected.std().clamp_min(1e-6))
    if found > TOLERANCE and anatomy.dtype == torch.float32:  # rounding, or a mistake? see Anatomy.self_test
        double: Any = copy.deepcopy(raw).double()
        exact = double(tokens.to(resid.device), use_cache=False, logits_to_keep=read).logits
        own, its = (float((x - exact).abs().max()) for x in (anatomy.unembed(resid[:, read]), expected))
        found = found if own > ROUNDING * its else TOLERANCE
    if not found <= (TOLERANCE if anatomy.dtype in (torch.float32, torch.float64) else 0.1):
        raise RuntimeError(f"the pass taken apart differs from the raw model by {found:.1e} of its logits' spread")
    return found


def chunks(anatomy: Anatomy, batch: Batch, metric: Metric, copies: int) -> Iterator[Int[Tensor, " row"]]:
    """Numbers of the prompts to run together, so that `copies` of a layer's values fit the budget.

    Raises `ValueError` when the batch is empty or the metric reads a position that it does not have.
    """
    if not len(batch):
        raise ValueError("the batch has no prompts")
    if int(metric.positions.max()) >= batch.n_pos:
        raise ValueError(
            f"{metric.name} reads position {int(metric.positions.max())}; these prompts have 0 to {batch.n_pos - 1}"
        )
    width = anatomy.n_heads * (batch.n_pos + 3 * anatomy.d_head) + 6 * anatomy.raw.config.hidden_size
    floats = copies * batch.n_pos * width + len(metric.positions) * anatomy.raw.config.vocab_size
    yield from torch.arange(len(batch)).split(max(1, numbers(SHARE) // floats))


def positions_at(batch: Batch, at: At | None) -> Int[Tensor, " found"]:
    """Positions in rising order: of a role, a (role, step) pair, a tuple of these; a tuple of positions; None = all.

    Raises `ValueError` with the choices where nothing is found.

    >>> positions_at(batch, (Role.INPUT, (Role.OUTPUT, 3))).tolist()
    [2, 4, 6, 13]
    """
    if at is None:
        return torch.arange(batch.n_pos)
    found: list[int] = []
    for part in _parts(at):
        match part:
            case Role():
                found += batch.at(part).tolist()
            case (Role() as role, step):
                found += batch.at(role, step).tolist()
            case int():
                if not 0 <= part < batch.n_pos:
                    raise ValueError(f"position {part} is outside 0 to {batch.n_pos - 1}")
                found.append(part)
    return torch.tensor(sorted(set(found)))


def words_of(at: At | None) -> str:
    """A place in words: "input label", "output 3", "input label and output", "positions 4, 7"."""
    if at is None:
        return "all positions"
    parts = _parts(at)
    if not isinstance(parts[0], Role | tuple):
        return ("position " if len(parts) == 1 else "positions ") + ", ".join(map(str, parts))
    named = (p.words if isinstance(p, Role) else f"{p[0].words} {p[1]}" for p in parts if isinstance(p, Role | tuple))
    return " and ".join(named)


def _parts(at: At) -> tuple[int | tuple[Role, int], ...]:
    """Roles, pairs and positions, one by one. A tuple of a role and a plain number is one pair."""
    match at:
        case Role():
            return (at,)
        case (Role(), int() as step) if not isinstance(step, Role):
            return (at,)  # pyright: ignore[reportReturnType]
        case tuple() if at and (all(map(_is_role, at)) or all(map(_is_position, at))):
            return at
    raise ValueError(
        f"a place is a Role ({', '.join(r.name for r in Role)}), a pair of Role and step, a tuple of these, or a "
        f"tuple of positions; got {at!r}"
    )


def _is_role(part: object) -> bool:
    match part:
        case Role():
            return True
        case (Role(), int() as step):
            return not isinstance(step, Role)
    return False


def _is_position(part: object) -> bool:
    return isinstance(part, int) and not isinstance(part, bool | Role)
