"""The logit lens: the answer's logits if the model stopped before each layer (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.answers import answer_tokens, likeliest_tokens, mean_and_error
from interp.circuits.components import recorded_passes
from interp.circuits.pairs import resolved_prompts
from interp.models.anatomy import Anatomy, anatomy_or_generic
from interp.models.architectures.checks import tolerance_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.answer_metrics import Answer
from interp.support.exactness import Inexact
from interp.support.finite import require_finite
from interp.tasks import Batch, Prompts, Role
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class LogitLens(Shown):
    """The last norm and W_U applied to the residual before each layer and after the last.

    Shapes:
        margin:   `[layer+1 batch read]`, logit(answer) - logit(other), or logit(answer) without another answer; the
                  last entry is the model's.
        log_prob: `[layer+1 batch read]`, of the answer, in nats, over the whole vocabulary.
        rank:     `[layer+1 batch read]`, number of tokens with a higher logit than the answer.
        likeliest: `[layer+1 batch read]`, the token with the highest logit.
        positions, names: `[read]`, the positions whose logits are read, and a name for each.
    """

    margin: Float[Tensor, "layer batch read"]
    log_prob: Float[Tensor, "layer batch read"]
    rank: Int[Tensor, "layer batch read"]
    likeliest: Int[Tensor, "layer batch read"]
    positions: Int[Tensor, " read"]
    names: tuple[str, ...]
    prompts: Prompts

    def __repr__(self) -> str:
        margins = ", ".join(f"{x:+.3g}" for x in self.margin.mean(dim=(1, 2)).tolist())
        return f"LogitLens({self.margin.shape[1]} prompts; mean margin before each layer and at the end: {margins})"

    def by_position(self) -> Float[Tensor, "layer read"]:
        """Return mean margins over prompts."""
        return self.margin.mean(dim=1)

    def words(self, prompt: int = 0) -> list[list[str]]:
        """Return the text of the most likely token by layer and read position, for one prompt."""
        return [[self.prompts.symbol(i) for i in row] for row in self.likeliest[:, prompt].tolist()]

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
    position: int | str | Sequence[int] = -1,
    role: Role = Role.OUTPUT,
    against: Batch | None = None,
) -> LogitLens:
    """Apply the logit lens at every layer.

    Without `answer`, prompts of no task are read by the tokens that the model itself predicts. Otherwise arguments are
    those of `direct_logit_attribution`, and so are `ValueError`s about answers. Models that are patched by the residual
    stream only have a lens, too. In early layers the lens misses information in directions that W_U does not read yet.
    Raises `RuntimeError` where the last residual does not give the model's logits.

    >>> logit_lens(run, "The Eiffel Tower is in", answer=" Paris", other=" Rome").by_position()
    >>> logit_lens(run, "The Eiffel Tower is in", position=range(6)).words()
    """
    own = resolved_prompts(model, prompts, "prompts")
    if answer is None and other is None and not isinstance(own, Batch):
        tokens = likeliest_tokens(model, own, position)
    else:
        tokens = answer_tokens(model, own, answer, other, position, role, against)
    anatomy = anatomy_or_generic(raw_of(model), test=False)  # the last row is tested on these prompts
    n_layers = len(anatomy.blocks if isinstance(anatomy, Anatomy) else anatomy.layers)
    sites = {"resid_pre": range(n_layers), "resid_post": [n_layers - 1]}
    collected: dict[str, list[Tensor]] = {"margin": [], "log_prob": [], "rank": [], "likeliest": []}
    copies = 2 * (n_layers + 1) * anatomy.raw.config.vocab_size
    for rows, expected, kept in recorded_passes(anatomy, own, sites, tokens.positions, copies):
        margin = require_finite(tokens.difference(expected, rows), "the margin", rows, axis=0)
        resid = torch.stack([*kept["resid_pre"].values(), kept["resid_post"][n_layers - 1]])
        logits = anatomy.unembed(resid.flatten(0, 1)).unflatten(0, resid.shape[:2])
        require_finite(logits, "a layer's logit", rows, axis=1)
        difference = float((logits[-1] - expected).abs().max() / expected.std(correction=0).clamp_min(1e-6))
        if not difference <= tolerance_of(anatomy.dtype):
            raise Inexact(f"the last residual gives other logits than the model, by {difference:.1e} of their spread")
        answers = tokens.answers[rows].to(logits.device).unsqueeze(-1).expand(*logits.shape[:-1], 1)
        picked = logits.gather(-1, answers)
        collected["margin"].append(torch.stack([*(tokens.difference(x, rows) for x in logits[:-1]), margin]))
        collected["log_prob"].append((picked - logits.logsumexp(dim=-1, keepdim=True)).squeeze(-1).double().cpu())
        collected["rank"].append((logits > picked).sum(dim=-1).cpu())
        collected["likeliest"].append(logits.argmax(dim=-1).cpu())
    by_prompt = {name: torch.cat(values, dim=1) for name, values in collected.items()}
    return LogitLens(**by_prompt, positions=tokens.positions, names=tokens.names, prompts=own)
