"""What is known of each head, and what may it be called? Numbers first; a name only by a stated rule.

A name is a claim about where a head looks, not about what it is for: whether anything depends on it is for
patching to say. So a head gets a name only where its attention is far above chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.composing import KINDS
from interp.tasks import Role

if TYPE_CHECKING:
    import pandas

# A name needs this share of the way from chance to all of the mass, two standard errors below the mean: one position
# or a few with a third of all attention; for sets that are a large part of the prompt, half.
NAMED = 1 / 3
NAMED_IN_GENERAL = 1 / 2
# A head without a name is diffuse where it spreads over this share of what it can see, else mixed.
DIFFUSE = 0.5
# Strengths that differ by less are the same.
CLOSE = 1e-3
# Below this share of the residual's norm, at every role, a head writes nothing that matters.
SILENT = 1e-5
# In order of precedence where two are equally strong. The general ones contain the others, so they name a head
# only where none of the others does.
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
# These claim that one token among many was picked out, which they do not show where uniform attention gives them
# more than this: where labels repeat, every one of them matches.
PICKED = ("after_matching_label", "matching_label", "induction")
MOST_CHANCE = 0.2
STATISTICS = (*SPECIFIC, *GENERAL, "spread", "output_share", "copying", "copying_rate")


@dataclass(frozen=True, eq=False)
class HeadDescriptions:
    """Statistics of every head, by the role of the position that looks.

    Prompts are the replicates: positions of a role are averaged in a prompt first. What holds of these prompts
    and this model says nothing yet of another model.

    Shapes:
        mean, error: `[layer head role statistic]`, over prompts; the error is the standard error between them (NaN
                     for one prompt), NaN where the statistic is not defined.
        chance:      `[role statistic]`, what uniform attention over the same positions gives; 0 for `copying`,
                     1 / tokens of the task for `copying_rate`, NaN for `output_share`.
        n:           `[role statistic]`, prompts in which it is defined.
        ov_copying:  `[layer head]`, see `interp.circuits.composing.ov_copying`.
        composition: `[kind layer head writer_layer writer_head]`, above chance, see `compositions`.

    `output_share`: the norm of what the head adds, as a share of the residual's that it adds to. `copying`: how
    many logits, above the mean over the task's tokens, the head's own output adds to the token that it attends to
    most, straight through the last norm at that position's scale; `copying_rate`: how often that token is the one
    that it raises most.
    """

    roles: tuple[Role, ...]
    answered_at: Role
    after_label: str
    mean: Float[Tensor, "layer head role statistic"]
    error: Float[Tensor, "layer head role statistic"]
    chance: Float[Tensor, "role statistic"]
    n: Int[Tensor, "role statistic"]
    ov_copying: Float[Tensor, "layer head"]
    composition: Float[Tensor, "kind layer head writer_layer writer_head"]

    @property
    def n_layers(self) -> int:
        """Layers."""
        return self.mean.shape[0]

    @property
    def n_heads(self) -> int:
        """Query heads of a layer."""
        return self.mean.shape[1]

    def value(self, layer: int, head: int, role: Role, statistic: str) -> float:
        """One mean. Raises `ValueError`, with the choices, for a head, role or statistic that is not there.

        >>> describe_heads(run.raw, batch).value(1, 0, Role.OUTPUT_LABEL, "after_matching_label")
        0.97
        """
        self._require(layer, head)
        return float(self.mean[layer, head, self._role(role), _statistic(statistic)])

    def above_chance(self, layer: int, head: int, role: Role, statistic: str) -> float:
        """Two standard errors below the mean mass: its share of the way from chance (0) to all mass (1).

        NaN where it is not defined, or where chance is all mass. Raises `ValueError` for what is not a mass.
        """
        self._require(layer, head)
        if statistic not in (*SPECIFIC, *GENERAL):
            raise ValueError(f"{statistic!r} is not a mass of attention; those are {', '.join((*SPECIFIC, *GENERAL))}")
        at = self._role(role), _statistic(statistic)
        mean, error, chance = float(self.mean[layer, head][at]), float(self.error[layer, head][at]), self.chance[at]
        room = 1 - float(chance)
        return (mean - 2 * (0.0 if math.isnan(error) else error) - float(chance)) / room if room > 1e-6 else math.nan

    def does(self, layer: int, head: int, role: Role) -> str | None:
        """Where the head looks from positions of a role: the strongest statistic that is enough for a name, or None.

        Mass on labels, inputs or outputs in general counts only where no other statistic fires: it contains them.
        """
        for group, least in ((SPECIFIC, NAMED), (GENERAL, NAMED_IN_GENERAL)):
            named = {s: x for s, x in self._strengths(layer, head, role, group).items() if x >= least}
            if named:
                # Equal but for rounding goes to the first: at output labels induction is after_matching_label.
                best = next(s for s, x in named.items() if x > max(named.values()) - CLOSE)
                return self._words(best)
        return None

    def name(self, layer: int, head: int) -> str:
        """What the head does, for a picture: "previous token at input and output, itself at output label".

        First what the head does at the role where that weighs most, its strength times the head's output there as a
        share of the residual, and every role at which it does the same; then what it does where answers are read
        (`answered_at`), if that is something else. The first token and separators do not count as places to look
        from, unless answers are read there. No role is named where the head does the same at every one. Where nothing
        fires, it is "diffuse" or "mixed" by its spread; "silent" is said of a head that writes nothing.
        """
        where = self.answered_at
        many = [role for role in self.roles if role not in (Role.START, Role.SEPARATOR)]
        looked_from = [*many, *({where} - {*many})]
        done = {role: self.does(layer, head, role) for role in looked_from}
        firing = {role: self._weight(layer, head, role) for role, what in done.items() if what}
        silent = all(self.value(layer, head, role, "output_share") < SILENT for role in looked_from)
        ending = ", silent" if silent else ""
        if not firing:
            return self._shape(layer, head, where) + ending
        best = max(firing, key=lambda role: firing[role])
        if all(what == done[best] for what in done.values()):
            return f"{done[best]}{ending}"
        alike = [role.words for role, what in done.items() if what == done[best]]
        at = " and ".join([*([", ".join(alike[:-1])] if alike[1:] else []), alike[-1]])
        if done[where] == done[best]:
            return f"{done[best]} at {at}{ending}"
        return f"{done[best]} at {at}, {done[where] or self._shape(layer, head, where)} at {where.words}{ending}"

    def names(self) -> dict[tuple[int, int], str]:
        """Every head's name, by (layer, head)."""
        return {(x, h): self.name(x, h) for x in range(self.n_layers) for h in range(self.n_heads)}

    def table(self) -> pandas.DataFrame:
        """A row for each layer, head, role and statistic: its mean, error, chance and n."""
        import pandas

        columns = ["layer", "head", "role", "statistic", "mean", "error", "chance", "n"]
        return pandas.DataFrame(list(self._rows()), columns=columns)

    def compositions(self) -> pandas.DataFrame:
        """A row for each head, q, k or v of it, and head of an earlier layer: their score above chance."""
        import pandas

        rows = []
        for kind, layer, head, before, writer in self.composition.isfinite().nonzero().tolist():
            score = float(self.composition[kind, layer, head, before, writer])
            rows.append((layer, head, KINDS[kind], before, writer, score))
        return pandas.DataFrame(rows, columns=["layer", "head", "kind", "writer_layer", "writer_head", "above_chance"])

    def to_json(self) -> dict:
        """A plain dictionary; NaN, which JSON has not, is None."""
        heads = []
        for (layer, head), name in self.names().items():
            copying = _finite(float(self.ov_copying[layer, head]))
            heads.append({"layer": layer, "head": head, "name": name, "ov_copying": copying})
        table, links = self.table(), self.compositions()
        rows = [{k: _finite(x) for k, x in row.items()} for row in table.to_dict("records")]
        return {
            "answered_at": self.answered_at.words,
            "named_above": NAMED,
            "heads": heads,
            "statistics": rows,
            "chance_composition_removed": True,
            "compositions": links.to_dict("records"),
        }

    def _rows(self) -> Iterator[tuple]:
        for layer, head in self.names():
            for r, role in enumerate(self.roles):
                for s, statistic in enumerate(STATISTICS):
                    numbers = (self.mean[layer, head, r, s], self.error[layer, head, r, s], self.chance[r, s])
                    yield layer, head, role.words, statistic, *map(float, numbers), int(self.n[r, s])

    def _strengths(self, layer: int, head: int, role: Role, group: tuple[str, ...]) -> dict[str, float]:
        chance = self.chance[self._role(role)]
        telling = [s for s in group if s not in PICKED or float(chance[_statistic(s)]) <= MOST_CHANCE]
        found = {s: self.above_chance(layer, head, role, s) for s in telling}
        return {s: x for s, x in found.items() if not math.isnan(x)}

    def _weight(self, layer: int, head: int, role: Role) -> tuple[float, float]:
        strength = max(self._strengths(layer, head, role, (*SPECIFIC, *GENERAL)).values())
        return strength * self.value(layer, head, role, "output_share"), strength

    def _shape(self, layer: int, head: int, role: Role) -> str:
        return "diffuse" if self.value(layer, head, role, "spread") >= DIFFUSE else "mixed"

    def _words(self, statistic: str) -> str:
        if statistic == "after_matching_label":
            return f"matching label ({self.after_label})"
        return statistic.replace("_", " ")

    def _role(self, role: Role) -> int:
        if role not in self.roles:
            there = ", ".join(r.name for r in self.roles)
            raise ValueError(f"no {Role(role).words} in these prompts; there are {there}")
        return self.roles.index(role)

    def _require(self, layer: int, head: int) -> None:
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            raise ValueError(
                f"no head L{layer}H{head}; layers are 0 to {self.n_layers - 1}, heads 0 to {self.n_heads - 1}"
            )


def _statistic(name: str) -> int:
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic {name!r}; statistics are {', '.join(STATISTICS)}")
    return STATISTICS.index(name)


def _finite(x: object) -> object:
    return None if isinstance(x, float) and not math.isfinite(x) else x
