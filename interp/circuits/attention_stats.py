"""Statistics of attention patterns: each row's mass on sets of positions, and how widely it is spread."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from interp.reducers import attention_masses
from interp.tasks import ANSWER_ROLES, Batch, Prompts, Role

# Masses on one or a few positions, in order of precedence for names. The general ones contain them.
SPECIFIC = (
    "after_matching_label",
    "matching_label",
    "due_input",
    "due_label",
    "induction",
    "previous_token",
    "separator",
    "first_token",
    "itself",
)
GENERAL = ("other_labels", "labels", "inputs", "outputs")
# Those that claim that one token among many is selected.
PICKED = ("after_matching_label", "matching_label", "induction", "duplicate_token")
# Not masses of attention; all but `spread` are computed in `interp.circuits.heads`.
MEASURES = ("spread", "output_share", "copying", "copying_rate")
STATISTICS = (*SPECIFIC, *GENERAL, *MEASURES)
# Prompts of no task.
TEXT_SPECIFIC = ("induction", "duplicate_token", "previous_token", "first_token", "itself")
TEXT_STATISTICS = (*TEXT_SPECIFIC, *MEASURES)
# Statistics in words, where their names alone do not say it.
WORDS = {
    "matching_label": "the same label",
    "due_label": "label of the next step",
    "duplicate_token": "earlier copy of the token",
}


def words_of(statistic: str, after_label: str) -> str:
    """Return where a statistic's attention goes, in words; `after_label` is what follows input labels.

    >>> words_of("after_matching_label", "bit")
    'bit after the same label'
    """
    match statistic:
        case "after_matching_label":
            return f"{after_label} after the same label"
        case "due_input":
            return f"{after_label if after_label in ('bit', 'digit', 'value') else 'input'} of the next step"
    return WORDS.get(statistic, statistic.replace("_", " "))


def attention_statistics(
    pattern: Float[Tensor, "batch head dest src"], prompts: Prompts
) -> dict[str, Float[Tensor, "batch head dest"]]:
    """Return the statistics of each row of attention, NaN where one is not defined.

    For all prompts:

    - `previous_token` (not defined at the first), `first_token`, `itself`: mass on these positions.
    - `induction`: mass on tokens right after an earlier occurrence of the row's own token, without the row's own
      position (prefix matching, Olsson et al. 2022). Defined for rows whose token occurred before.
    - `spread`: e to the power of the entropy, as a share of the visible sources; 1 for uniform attention.
    - `duplicate_token`: mass on earlier occurrences of the row's own token, where there are any.

    Prompts of a task also have those of `attention_masses`, and

    - `due_input`, `due_label`: mass on the input of the step that is answered next (the bit to read), and on its input
      label (the label to write). Defined after the inputs, up to the last answer.
    - `inputs`, `outputs`: mass on all inputs (bits, digits); on all outputs and answers.
    - `separator`: mass on separators, for rows that can see one.

    At the output labels of aligned prompts, `induction` equals `after_matching_label`. At outputs it differs: the token
    of a parity occurs at many positions. Where a head attends does not show how it finds the position: in an aligned
    prompt the matching label is also the i-th label. `rotate_labels` makes prompts that tell these two apart.
    """
    if not isinstance(prompts, Batch):
        return _general(pattern, prompts)
    assert prompts.role is not None
    pos, answers = (torch.tensor(x, device=pattern.device) for x in (range(prompts.n_pos), ANSWER_ROLES))
    role = prompts.role.to(pattern.device)
    separators = (role == Role.SEPARATOR) & (pos <= pos.unsqueeze(-1))
    return {
        **_general(pattern, prompts),
        **attention_masses(pattern, prompts),
        "due_input": _mass(pattern, _due(prompts, Role.INPUT).to(pattern.device).unsqueeze(0)),
        "due_label": _mass(pattern, _due(prompts, Role.INPUT_LABEL).to(pattern.device).unsqueeze(0)),
        "separator": _mass(pattern, separators.unsqueeze(0)),
        "inputs": torch.einsum("bhds,s->bhd", pattern, (role == Role.INPUT).to(pattern.dtype)),
        "outputs": torch.einsum("bhds,s->bhd", pattern, torch.isin(role, answers).to(pattern.dtype)),
    }


def rotate_labels(batch: Batch) -> Batch:
    """Return prompts whose output labels move by one step: label 2 where label 1 was, label 1 at the last step.

    What a matching head reads moves with the label; what a counting head reads does not. Bits and outputs are kept, so
    the written outputs are no longer the answers.

    Raises `ValueError` where there are fewer than two output labels, or where all are the same.

    >>> rotate_labels(sample("parity-numeric", 1, 3, seed=0)).text()
    '>>> 1 a 2 b 3 b === 2 a 3 b 1 a'
    """
    at = batch.at(Role.OUTPUT_LABEL)
    tokens = batch.tokens.clone()
    tokens[:, at] = tokens[:, at.roll(-1)]
    if torch.equal(tokens, batch.tokens):
        raise ValueError(
            f"the output labels of these prompts of {batch.format} are all the same: rotation does nothing"
        )
    return batch.with_tokens(tokens)


def _general(
    pattern: Float[Tensor, "batch head dest src"], prompts: Prompts
) -> dict[str, Float[Tensor, "batch head dest"]]:
    """Return the statistics that need no roles."""
    n_pos, tokens = prompts.n_pos, prompts.tokens.to(pattern.device)
    pos = torch.arange(n_pos, device=pattern.device)
    earlier = pos < pos.unsqueeze(-1)  # [dest src]
    same = tokens[:, :, None] == tokens[:, None, :]  # [batch dest src]
    previous = torch.full_like(pattern[..., 0], torch.nan)
    previous[..., 1:] = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
    visible = pos + 1 if not pattern.triu(1).any() else n_pos
    entropy = -torch.special.xlogy(pattern, pattern).sum(dim=-1)
    return {
        "induction": _mass(pattern, pad(same[..., :-1], (1, 0)) & earlier),
        "duplicate_token": _mass(pattern, same & earlier),
        "previous_token": previous,
        "first_token": pattern[..., 0],
        "itself": pattern.diagonal(dim1=-2, dim2=-1),
        "spread": entropy.exp() / visible,
    }


def _mass(
    pattern: Float[Tensor, "batch head dest src"], sources: Bool[Tensor, "#batch dest src"]
) -> Float[Tensor, "batch head dest"]:
    """Return the mass of each row on its sources; NaN for rows without any."""
    expanded = sources.expand(len(pattern), -1, -1)
    mass = torch.einsum("bhds,bds->bhd", pattern, expanded.to(pattern.dtype))
    return mass.masked_fill(~expanded.any(dim=-1).unsqueeze(1), torch.nan)


def _due(batch: Batch, role: Role) -> Bool[Tensor, "dest src"]:
    """Return for each position after the inputs the positions of a role of the first step answered after it."""
    assert batch.role is not None
    assert batch.step is not None
    mask = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    inputs, answers = batch.role == Role.INPUT, torch.isin(batch.role, torch.tensor(ANSWER_ROLES))
    last = int(inputs.nonzero().max()) if inputs.any() else batch.n_pos
    for dest in range(last + 1, batch.n_pos):
        due = answers[dest + 1 :].nonzero().flatten()
        if len(due):
            mask[dest] = (batch.role == role) & (batch.step == batch.step[dest + 1 + due[0]])
    return mask
