"""The result of patching: values, checks and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas
    from transformer_lens.patching import PatchingResult


@dataclass(frozen=True)
class Checks:
    """Checks made while the sweep ran; differences are the largest, in units of the metric.

    positive: difference of patching everything from the source run.
    negative: difference of patching a run with itself from that run.
    spot_cells: random cells that were recomputed by the literal loop on the raw model.
    spot_difference: their difference from it.
    tolerance: the largest difference allowed.
    """

    positive: float
    negative: float
    spot_cells: int
    spot_difference: float
    tolerance: float


@dataclass(frozen=True)
class Cost:
    """Counts of a sweep.

    patches, skipped: patches of the sweep, and those that cannot change the metric and were not computed.
    flops, loop_flops, lower_bound_flops: of the sweep, of the literal loop, and the least of any exact method.
    chunk_rows: rows that were stacked.
    seconds: wall-clock time of the units.
    """

    patches: int
    skipped: int
    flops: float
    loop_flops: float
    lower_bound_flops: float
    chunk_rows: int
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class PatchEffect(Shown):
    """The metric of every patched run, for each prompt.

    Shapes:
        values: `[*axes batch]`, the metric after each patch.
        base:   `[batch]`, the metric of the run that is patched into.
        source: `[batch]`, the metric of the run that activations come from. An ablation or a knock-out has no such run;
            its `source` is its `base`.

    `axes` names the swept axes ("layer", "pos", "head") and `labels` their entries.
    """

    site: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    labels: dict[str, tuple[str | int, ...]]
    values: Float[Tensor, "*cells batch"]
    base: Float[Tensor, " batch"]
    source: Float[Tensor, " batch"]
    checks: Checks | None = None
    cost: Cost | None = None
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (*(len(self.labels[a]) for a in self.axes), len(self.base))
        if tuple(self.values.shape) != expected or self.base.shape != self.source.shape:
            raise ValueError(f"values must be {expected} for axes {self.axes}; got {tuple(self.values.shape)}")

    def __repr__(self) -> str:
        shape = ", ".join(f"{axis} {len(self.labels[axis])}" for axis in self.axes)
        source = "" if self.source is self.base else f", source={float(self.source.mean()):.4g}"
        return (
            f"PatchEffect({self.site!r}, {self.direction!r}, {self.metric!r}, [{shape}, batch {len(self.base)}], "
            f"base={float(self.base.mean()):.4g}{source})"
        )

    @property
    def change(self) -> Float[Tensor, "*cells batch"]:
        """Metric after the patch minus before it."""
        return self.values - self.base

    @property
    def recovered(self) -> Float[Tensor, "*cells"]:
        """Mean change divided by the mean difference of source and base: 0 for no effect, 1 for all of it.

        Raises `ValueError` if the two runs do not differ in the metric.
        """
        full = self.source - self.base
        mean, error = float(full.mean()), float(full.std(correction=0)) / max(1, len(full)) ** 0.5
        if abs(mean) <= max(3 * error if len(full) > 1 else 0.0, 1e-6):
            raise ValueError(
                f"source and base differ by {mean:.3g} in {self.metric}: too little to recover; look at `change`"
            )
        return self.change.mean(dim=-1) / mean

    def top(self, k: int = 5) -> list[tuple[tuple[str | int, ...], float]]:
        """Return the k cells whose patch changes the mean metric most, with that change.

        Raises `ValueError` for k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more; got {k}")
        change = self.change.mean(dim=-1)
        order = change.flatten().abs().argsort(descending=True, stable=True)[:k].tolist()
        names = list(product(*(self.labels[a] for a in self.axes)))
        return [(names[i], float(change.flatten()[i])) for i in order]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per cell and prompt: axes, prompt, value, base, and source where there is a source run."""
        import pandas

        names = list(product(*(self.labels[a] for a in self.axes)))
        n = len(self.base)
        columns: dict[str, object] = {
            axis: [name[i] for name in names for _ in range(n)] for i, axis in enumerate(self.axes)
        }
        cells = len(names)
        columns |= {
            "prompt": list(range(n)) * cells,
            "value": self.values.flatten().tolist(),
            "base": self.base.repeat(cells).tolist(),
        }
        if self.source is not self.base:
            columns["source"] = self.source.repeat(cells).tolist()
        return pandas.DataFrame(columns)

    def to_patching_result(self) -> PatchingResult:
        """Return TransformerLens's own result type, for its statistics (bootstrap, permutation p-values)."""
        import pandas
        from transformer_lens.patching import PatchingResult

        names = list(product(*(self.labels[a] for a in self.axes)))
        index = pandas.DataFrame(names, columns=list(self.axes))
        return PatchingResult(
            values=self.values,
            axis_names=list(self.axes),
            index_df=index,
            metric_names=[self.metric],
            reduced=False,
            baseline=self.base,
        )

    def summary(self) -> dict:
        """Return checks, cost and mean metrics as plain data."""
        return {
            "site": self.site,
            "metric": self.metric,
            "direction": self.direction,
            "base": float(self.base.mean()),
            "source": float(self.source.mean()),
            "checks": None if self.checks is None else asdict(self.checks),
            "cost": None if self.cost is None else asdict(self.cost),
            **self.details,
        }
