"""Where does each row of attention go? Its mass on sets of positions that prompts of these tasks have."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from interp.reducers import attention_masses
from interp.tasks import ANSWER_ROLES, Batch, Role


def attention_statistics(
    pattern: Float[Tensor, "batch head dest src"], batch: Batch
) -> dict[str, Float[Tensor, "batch head dest"]]:
    """Numbers of each row of attention, NaN where one is not defined: those of `attention_masses`, and

    - `induction`: mass on tokens that stand right after an earlier occurrence of the row's own token (prefix
      matching, Olsson et al. 2022), the row's own position apart. Rows whose token occurred before. At the output
      labels of aligned prompts these are the tokens after the matching label, so that the two statistics are one
      there; at outputs they are not, since a parity's own token stands at many places and is not the label's.
    - `due_input`, `due_label`: mass on the input of the step that is answered next, the bit to read, and on its input
      label, the label to write: found by whatever means. Rows after the inputs, up to the last answer.
    - `inputs`, `outputs`: mass on all inputs (bits, digits); on all outputs and answers.
    - `separator`: mass on separators, at rows that can see one.
    - `spread`: e to the power of the entropy, the number of sources it is as good as spread over, as a share of
      those that it can see: 1 for uniform attention.

    Where a head looks does not say how it found it: in an aligned prompt the matching label is also the i-th one.
    `turn_labels` makes prompts where the two are different places, `after_matching_label` and `due_input`.
    """
    pos, answers = (torch.tensor(x, device=pattern.device) for x in (range(batch.n_pos), ANSWER_ROLES))
    tokens, role = batch.tokens.to(pattern.device), batch.role.to(pattern.device)
    alike = tokens[:, :, None] == tokens[:, None, :]  # [batch dest src]
    follows = pad(alike[..., :-1], (1, 0)) & (pos < pos.unsqueeze(-1))
    separates = (role == Role.SEPARATOR) & (pos <= pos.unsqueeze(-1))
    visible = pos + 1 if not pattern.triu(1).any() else batch.n_pos
    entropy = -torch.special.xlogy(pattern, pattern).sum(dim=-1)

    def mass(sources: Tensor) -> Tensor:
        found = torch.einsum("bhds,bds->bhd", pattern, sources.expand(len(pattern), -1, -1).to(pattern.dtype))
        return found.masked_fill(~sources.any(dim=-1).expand(len(pattern), -1).unsqueeze(1), torch.nan)

    return {
        **attention_masses(pattern, batch),
        "due_input": mass(_due(batch, Role.INPUT).to(pattern.device).unsqueeze(0)),
        "due_label": mass(_due(batch, Role.INPUT_LABEL).to(pattern.device).unsqueeze(0)),
        "induction": mass(follows),
        "separator": mass(separates.unsqueeze(0)),
        "inputs": torch.einsum("bhds,s->bhd", pattern, (role == Role.INPUT).to(pattern.dtype)),
        "outputs": torch.einsum("bhds,s->bhd", pattern, torch.isin(role, answers).to(pattern.dtype)),
        "spread": entropy.exp() / visible,
    }


def turn_labels(batch: Batch) -> Batch:
    """The same prompts with each output label one step on: label 2 where label 1 stood, label 1 at the last step.

    What a matching head reads moves with the label; what a head reads by counting stays. Bits and outputs are
    kept, so the written outputs are not the answers any more.

    Raises `ValueError` where there are fewer than two output labels, or where they are all the same.

    >>> turn_labels(sample("parity-numeric", 1, 3, seed=0)).text()
    '>>> 1 a 2 b 3 b === 2 a 3 b 1 a'
    """
    at = batch.at(Role.OUTPUT_LABEL)
    tokens = batch.tokens.clone()
    tokens[:, at] = tokens[:, at.roll(-1)]
    if torch.equal(tokens, batch.tokens):
        raise ValueError(f"the output labels of these prompts of {batch.format} are all the same: nothing turns")
    return batch.with_tokens(tokens)


def _due(batch: Batch, role: Role) -> Bool[Tensor, "dest src"]:
    """For each position after the inputs, the positions of a role of the first step that is answered after it."""
    found = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    inputs, answers = batch.role == Role.INPUT, torch.isin(batch.role, torch.tensor(ANSWER_ROLES))
    last = int(inputs.nonzero().max()) if inputs.any() else batch.n_pos
    for dest in range(last + 1, batch.n_pos):
        due = answers[dest + 1 :].nonzero().flatten()
        if len(due):
            found[dest] = (batch.role == role) & (batch.step == batch.step[dest + 1 + due[0]])
    return found
