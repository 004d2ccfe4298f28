"""The logit lens: the answer's logits if the model stopped before each layer (nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.answers import answer_tokens, cached_chunks, mean_and_error
from interp.circuits.pairs import resolved_prompts
from interp.models.resolve import AnyModel, bridge_of
from interp.patching.answer_metrics import Answer
from interp.support.finite import require_finite
from interp.tasks import Batch, Role

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The last norm and W_U applied to the residual before each layer and after the last.

    Shapes:
        margin:   `[layer+1 batch read]`, logit(answer) - logit(other), or logit(answer) without another answer; the
                  last entry is the model's.
        log_prob: `[layer+1 batch read]`, of the answer, in nats, over the whole vocabulary.
        rank:     `[layer+1 batch read]`, number of tokens with a higher logit than the answer.
        positions, names: `[read]`, the positions whose logits are read, and a name for each.
    """

    margin: Float[Tensor, "layer batch read"]
    log_prob: Float[Tensor, "layer batch read"]
    rank: Int[Tensor, "layer batch read"]
    positions: Int[Tensor, " read"]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        margins = ", ".join(f"{x:+.3g}" for x in self.margin.mean(dim=(1, 2)).tolist())
        return f"LogitLens({self.margin.shape[1]} prompts; mean margin before each layer and at the end: {margins})"

    def _ipython_display_(self) -> None:
        """Show the view in a notebook."""
        from interp.views import show

        show(self)

    def by_position(self) -> Float[Tensor, "layer read"]:
        """Return mean margins over prompts."""
        return self.margin.mean(dim=1)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per layer and position: margin, standard error, log probability, share of rank 0, prompts."""
        import pandas

        columns = ["layer", "position", "name", "margin", "error", "log_prob", "first", "n"]
        rows = [
            (
                layer,
                int(pos),
                name,
                *mean_and_error(self.margin[layer, :, i]),
                float(self.log_prob[layer, :, i].mean()),
                float((self.rank[layer, :, i] == 0).double().mean()),
                self.margin.shape[1],
            )
            for layer in range(len(self.margin))
            for i, (pos, name) in enumerate(zip(self.positions, self.names, strict=True))
        ]
        return pandas.DataFrame(rows, columns=columns)


@exclusive
@torch.no_grad()
def logit_lens(
    model: AnyModel,
    prompts: PromptsLike,
    answer: Answer | None = None,
    other: Answer | None = None,
    position: int | str = -1,
    role: Role = Role.OUTPUT,
    against: Batch | None = None,
) -> LogitLens:
    """Apply the logit lens at every layer, by TransformerLens's `logit_lens`.

    Arguments and `ValueError`s are those of `direct_logit_attribution`. In early layers the lens misses information in
    directions that W_U does not read yet.

    >>> logit_lens(run, "The Eiffel Tower is in", answer=" Paris", other=" Rome").by_position()
    """
    from transformer_lens.tools import analysis

    bridge: Any = bridge_of(model)
    own = resolved_prompts(model, prompts, "prompts")
    tokens = answer_tokens(model, own, answer, other, position, role, against)

    def read(cache: Any, targets: Tensor, kind: str) -> Any:
        return analysis.logit_lens(
            bridge, cache=cache, positions=tokens.positions, targets=targets, return_type=kind
        ).readout

    collected: dict[str, list[Tensor]] = {"margin": [], "log_prob": [], "rank": []}
    for rows, _, cache in cached_chunks(bridge, own):
        logits, log_probs = (read(cache, tokens.answers[rows], kind) for kind in ("logits", "log_probs"))
        margin = logits.values
        if tokens.others is not None:
            margin = margin - read(cache, tokens.others[rows], "logits").values
        for name, values in (("margin", margin), ("log_prob", log_probs.values)):
            finite = require_finite(values.squeeze(-1).double().cpu(), f"a layer's {name}", rows, axis=1)
            collected[name].append(finite)
        collected["rank"].append(logits.target_ranks.squeeze(-1).cpu())
    by_prompt = {name: torch.cat(values, dim=1) for name, values in collected.items()}
    return LogitLens(**by_prompt, positions=tokens.positions, names=tokens.names)
