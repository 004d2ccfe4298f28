"""Detect heads by their attention on any prompts: previous token, duplicate token, induction, first token (sink).

The scores are those of TransformerLens's `detect_head`. A score says where a head attends; only patching shows whether
anything depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_by_length
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import SHARE, forward_with_edits
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Prompts
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas

Kind = Literal["previous_token", "duplicate_token", "induction", "first_token"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Measure = Literal["mul", "abs"]


@dataclass(frozen=True, eq=False)
class HeadScores(Shown):
    """How well each head's attention matches each detection pattern.

    Shapes:
        values: `[kind layer head]`, means over prompts.
        n: the number of prompts.
    """

    kinds: tuple[str, ...]
    values: Float[Tensor, "kind layer head"]
    measure: str
    n: int

    def __repr__(self) -> str:
        best = ", ".join(f"{kind} L{h[0]}H{h[1]} {score:.2f}" for kind in self.kinds for h, score in self.top(kind, 1))
        return f"HeadScores({self.n} prompts, {self.measure}; best: {best})"

    @property
    def by_kind(self) -> dict[str, Float[Tensor, "layer head"]]:
        """The table of each kind."""
        return dict(zip(self.kinds, self.values, strict=True))

    def top(self, kind: str, k: int = 5) -> list[tuple[tuple[int, int], float]]:
        """Return the k heads (layer, head) with the highest scores. Raises `ValueError` for an unknown kind."""
        if kind not in self.kinds:
            raise ValueError(f"no scores of {kind!r}; kinds are {', '.join(self.kinds)}")
        table = self.by_kind[kind]
        order = table.flatten().argsort(descending=True, stable=True)[:k].tolist()
        return [(divmod(i, table.shape[1]), float(table.flatten()[i])) for i in order]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per layer and head, with a column per kind."""
        import pandas

        _, n_layers, n_heads = self.values.shape
        heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
        columns = {kind: table.flatten().tolist() for kind, table in self.by_kind.items()}
        return pandas.DataFrame(heads, columns=["layer", "head"]).assign(**columns)


@exclusive
@torch.no_grad()
def detect_heads(
    model: AnyModel,
    prompts: PromptsLike,
    kinds: str | Sequence[str] | Mapping[str, Float[Tensor, "dest src"]] = KINDS,
    measure: Measure = "mul",
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
) -> HeadScores:
    """Score every head against detection patterns, on texts of any lengths, token ids or `Prompts`.

    Args:
        kinds: names, also as TransformerLens has them ("induction_head"); or a mapping from names of your own to
            lower-triangular patterns `[dest src]`, for prompts of one length.
        measure: "mul" is the share of all attention that falls on the pattern, summed over rows; "abs" is 1 less the
            mean over rows of the absolute differences from the pattern (TransformerLens rounds it to three digits).
        exclude_bos: leave attention to the first position out.
        exclude_current_token: leave attention of a position to itself out.

    Patterns: "previous_token" one position back; "duplicate_token" earlier positions with the row's own token;
    "induction" positions right after these; "first_token" position 0. Rows that have no such position count as zeros.

    Raises `ValueError` for an unknown kind or measure, a pattern of another shape, prompts of fewer than two tokens
    (three where both options leave attention out), and an architecture that cannot be taken apart.

    >>> detect_heads(run, ["one two three one two"]).top("induction", 1)
    [((5, 1), 0.41)]
    """
    if measure not in get_args(Measure):
        raise ValueError(f"measure must be 'mul' or 'abs'; got {measure!r}")
    given = kinds if isinstance(kinds, Mapping) else {name: None for name in _names(kinds)}
    anatomy = anatomy_of(raw_of(model))
    total, n = torch.zeros(len(given), len(anatomy.blocks), anatomy.n_heads, dtype=torch.float64), 0
    for group in prompts_by_length(model, prompts):
        if group.n_pos < 2:
            raise ValueError("heads are detected on prompts of two or more tokens")
        if group.n_pos == 2 and exclude_bos and exclude_current_token:
            raise ValueError(
                "without the first token and a position's own, no attention of a prompt of two tokens is left; give "
                "prompts of three or more"
            )
        width = anatomy.n_heads * group.n_pos * (2 + len(given)) + 8 * anatomy.d_model
        size = max(1, numbers(SHARE, anatomy.device) // (width * group.n_pos))
        for rows in torch.arange(len(group)).split(size):
            part = group.rows(rows)
            wanted = torch.stack([_pattern(part, name, pattern) for name, pattern in given.items()])
            total += _scores(anatomy, part, wanted, measure, exclude_bos, exclude_current_token).sum(dim=0)
        n += len(group)
    if not n:
        raise ValueError("there are no prompts")
    return HeadScores(tuple(given), total / n, measure, n)


def _names(kinds: str | Sequence[str]) -> list[str]:
    listed = [kind.removesuffix("_head") for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    if not listed or (bad := [kind for kind in listed if kind not in KINDS]):
        raise ValueError(f"unknown kind {bad[0] if listed else 'none'!r}; kinds are {', '.join(KINDS)}")
    return listed


def detection_pattern(tokens: Int[Tensor, "batch pos"], kind: Kind) -> Float[Tensor, "batch dest src"]:
    """Return the pattern of ones and zeros that a head of a kind is compared with."""
    n = tokens.shape[1]
    same = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)  # an earlier position with the row's token
    pattern = torch.zeros(len(tokens), n, n)
    match kind:
        case "previous_token":
            pattern.diagonal(offset=-1, dim1=1, dim2=2).fill_(1)
        case "duplicate_token":
            pattern = same.float()
        case "induction":
            pattern[:, :, 1:] = same[:, :, :-1].float()
        case "first_token":
            pattern[:, :, 0] = 1
    return pattern


def _pattern(prompts: Prompts, name: str, given: Tensor | None) -> Float[Tensor, "#batch dest src"]:
    if given is None:
        return detection_pattern(prompts.tokens, name)  # type: ignore[arg-type]
    n = prompts.n_pos
    if tuple(given.shape) != (n, n) or given.triu(1).any():
        raise ValueError(f"{name}: a detection pattern is lower-triangular, [{n} {n}]; got {list(given.shape)}")
    return given.float().expand(len(prompts), -1, -1)


def _scores(
    anatomy: Anatomy,
    prompts: Prompts,
    wanted: Float[Tensor, "kind batch dest src"],
    measure: Measure,
    exclude_bos: bool,
    exclude_current_token: bool,
) -> Float[Tensor, "batch kind layer head"]:
    """Return the score of each prompt."""
    resid = anatomy.embed(prompts.tokens.to(anatomy.device))
    wanted = wanted.to(anatomy.device).unsqueeze(2)  # [kind batch 1 dest src]
    counted = torch.ones(prompts.n_pos, prompts.n_pos, device=anatomy.device)
    counted[:, 0] *= not exclude_bos
    counted *= 1 - torch.eye(prompts.n_pos, device=anatomy.device) * exclude_current_token
    by_layer = []
    for layer in range(len(anatomy.blocks)):
        resid, kept = forward_with_edits(anatomy, resid, layer, layer + 1, keep=[("pattern", layer)])
        pattern = require_finite(kept["pattern", layer].float(), f"a pattern of layer {layer}", axis=0)
        if measure == "mul":
            pattern = pattern * counted
            by_layer.append((pattern * wanted).sum(dim=(-2, -1)) / pattern.sum(dim=(-2, -1)))
        else:
            distance = (pattern - wanted).abs() * counted
            by_layer.append(1 - distance.sum(dim=(-2, -1)) / prompts.n_pos)
    return torch.stack(by_layer, dim=2).movedim(0, 1).double().cpu()  # from [kind batch layer head]
