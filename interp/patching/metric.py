"""The type of a metric: a function of the logits at declared positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks import Prompts

Compute = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Metric:
    """A function of the logits at the positions that it declares; no other position is unembedded.

    A metric that reads the logits of few tokens declares these too, and no other token is unembedded.

    Shapes:
        positions: `[read]`, positions whose logits are read (one before the token that they predict), in order.
        compute:   takes logits `[... row read d_vocab]`, at least float32, and the numbers of the prompts `[row]`,
            returns `[... row]`.
        tokens:    `[token]`, ids of the tokens whose logits are read, in rising order; None for all of them.
        compute_tokens: the same as `compute`, from logits `[... row read token]`. Needed with `tokens`.
        own: `[batch]`, the one position that each prompt reads; None where a prompt may read all of them.
        narrow: takes some of these positions; returns the metric of the prompts whose own positions are among them.
            Needed with `own`.
        prompts: the number of prompts whose answers it holds; None where it holds none.

    >>> Metric("entropy", torch.tensor([13]), lambda logits, rows: entropy(logits[..., 0, :]))
    """

    name: str
    positions: Int[Tensor, " read"]
    compute: Compute
    tokens: Int[Tensor, " token"] | None = None
    compute_tokens: Compute | None = None
    own: Int[Tensor, " batch"] | None = None
    narrow: Callable[[Int[Tensor, " read"]], Metric] | None = None
    prompts: int | None = None

    def __post_init__(self) -> None:
        p, t = self.positions, self.tokens
        if not _rises(p):
            raise ValueError(f"a metric reads one or more positions in rising order; got {p.tolist()}")
        if (t is None) != (self.compute_tokens is None):
            raise ValueError("`tokens` and `compute_tokens` belong together; give both or neither")
        if t is not None and not _rises(t):
            raise ValueError(f"a metric reads one or more tokens in rising order; got {t.tolist()}")
        if (self.own is None) != (self.narrow is None):
            raise ValueError("`own` and `narrow` belong together; give both or neither")

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, positions={self.positions.tolist()})"

    def measure(
        self, logits: Float[Tensor, "*stack row read d_vocab"], rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "*stack row"]:
        """Return `compute`'s values. Raises `ValueError` unless there is one number per prompt and patched run."""
        return self._computed(self.compute, logits, rows)

    def measure_read(
        self, logits: Float[Tensor, "*stack row read token"], rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "*stack row"]:
        """Return the values from logits of `tokens` alone, or of the vocabulary where `tokens` is None."""
        return self._computed(self.compute if self.compute_tokens is None else self.compute_tokens, logits, rows)

    def of_rows(self, rows: Int[Tensor, " row"]) -> Metric:
        """Return the metric with the positions that some prompts read, for logits at these alone."""
        return self if self.own is None or self.narrow is None else self.narrow(self.own[rows].unique())

    def _computed(self, compute: Compute, logits: Tensor, rows: Tensor) -> Tensor:
        try:
            values = compute(precise(logits), rows)
        except IndexError as error:  # a metric of one's own rarely says how many prompts it is of
            asked = f"prompts {int(rows.min())} to {int(rows.max())}"
            raise ValueError(
                f"metric {self.name!r} of {asked}: {error}; has it the answers of fewer prompts?"
            ) from error
        expected = tuple(logits.shape[:-2])
        if not isinstance(values, Tensor) or tuple(values.shape) != expected:
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"metric {self.name!r} must return one number per prompt, [... row] = {expected}, from logits "
                f"[... row read d_vocab] = {tuple(logits.shape)}; got {what}"
            )
        return values

    def require_positions(self, n_pos: int) -> None:
        """Raise `ValueError` if the metric reads past the end of prompts of `n_pos` tokens."""
        if (last := self.positions.tolist()[-1]) >= n_pos:  # they rise
            raise ValueError(f"{self.name} reads position {last}; these prompts have 0 to {n_pos - 1}")


def _rises(numbers: Tensor) -> bool:
    """Return whether these are one or more numbers from 0 on in rising order."""
    if numbers.ndim != 1 or not len(numbers):
        return False
    listed = numbers.tolist()
    return listed[0] >= 0 and all(a < b for a, b in pairwise(listed))


def metric_of_tokens(
    name: str,
    positions: Int[Tensor, " read"],
    ids: Sequence[Int[Tensor, "..."]],
    compute_of: Callable[..., Compute],
    prompts: int | None = None,
) -> Metric:
    """Return a metric that reads the logits of the tokens in `ids` only; `prompts` is that of `Metric`.

    `compute_of` returns a metric's `compute` from `ids`. It is called once with the token ids and once with their
    columns among the declared tokens, so that both ways of reading compute the same.
    """
    tokens = torch.cat([part.flatten() for part in ids]).unique()
    columns = [torch.searchsorted(tokens, part) for part in ids]
    own, read = compute_of(*ids), compute_of(*columns)
    return Metric(name, positions, own, tokens=tokens, compute_tokens=read, prompts=prompts)


@dataclass(frozen=True, eq=False)
class UnboundMetric:
    """A metric of answers given as text or token ids, before it knows the prompts and the tokenizer.

    Functions that take a metric bind it to the model and the base prompts.
    """

    name: str
    bind: Callable[[object, Prompts], Metric]

    def __repr__(self) -> str:
        return f"UnboundMetric({self.name!r})"


MetricLike = Metric | UnboundMetric


def bind_metric(metric: MetricLike, model: object, prompts: Prompts) -> Metric:
    """Return the metric of these prompts. `model` supplies the tokenizer where the prompts have none.

    Raises `ValueError` for an answer that is not one token, a position past the end, answers of more or fewer prompts,
    or anything but a metric.
    """
    if isinstance(metric, UnboundMetric):
        metric = metric.bind(model, prompts)
    if not isinstance(metric, Metric):
        what = "a plain function" if callable(metric) else type(metric).__name__
        own = "; declare your own as Metric(name, positions, compute), or use interp.patching.grids, which take one"
        raise ValueError(
            f"metric must be a Metric, such as logit_diff(answer=' Mary', other=' John'); got {what}"
            + (own if callable(metric) else "")
        )
    metric.require_positions(prompts.n_pos)
    if metric.prompts is not None and metric.prompts != len(prompts):
        raise ValueError(
            f"{metric.name} has the answers of {metric.prompts} prompts, and {len(prompts)} are measured; make it from "
            "the same batch"
        )
    return metric


def bind_metrics(metrics: Sequence[MetricLike], model: object, prompts: Prompts) -> list[Metric]:
    """Return several metrics as `bind_metric` does.

    Raises its errors, `ValueError` for no metric, and `TypeError` where `metrics` is no list.
    """
    if not isinstance(metrics, Sequence) or isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of metrics; got {type(metrics).__name__}")
    if not metrics:
        raise ValueError("give at least one metric")
    return [bind_metric(metric, model, prompts) for metric in metrics]


def pick(logits: Float[Tensor, "*stack d_vocab"], tokens: Int[Tensor, "*rows"]) -> Float[Tensor, "*stack"]:
    """Return the logits at tokens, whose axes are the last ones of the logits' axes before d_vocab."""
    index = tokens.to(logits.device, non_blocking=True).expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1)


def picker(tokens: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of logits `[... row d_vocab]` and the numbers of the prompts `[row]`, which gives the logits
    `[... row]` at each prompt's own one of the `tokens [batch]`."""
    if len(set(tokens)) == 1:
        return lambda logits, _: logits[..., tokens[0]]
    ids = torch.tensor(tokens, dtype=torch.long)
    return lambda logits, rows: pick(logits, ids[rows])


def at_column(
    logits: Float[Tensor, "*stack row read d_vocab"], column: Int[Tensor, " row"]
) -> Float[Tensor, "*stack row d_vocab"]:
    """Return the logits at one column of `read` per row."""
    if logits.shape[-2] == 1:
        return logits.squeeze(-2)
    own = column.to(logits.device, non_blocking=True).view(-1, 1, 1)
    return logits.gather(-2, own.expand(*logits.shape[:-2], 1, logits.shape[-1])).squeeze(-2)


def precise(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 if they are: differences need more digits than half precision has."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
