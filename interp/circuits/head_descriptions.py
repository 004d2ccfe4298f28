"""The descriptions of heads, and the rule by which a head gets a name.

A name states where a head attends, not what it is for; only patching shows whether anything depends on it. A head
gets a name only where its attention is far above chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.attention_stats import GENERAL, MEASURES, PICKED, SPECIFIC, TEXT_SPECIFIC, words_of
from interp.circuits.composing import KINDS
from interp.tasks import Role
from interp.tasks.limits import is_index
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas

# A name needs this share of the range from chance to all of the mass, two standard errors below the mean. A third for
# statistics of one or a few positions; half for those of large sets of positions.
NAMED = 1 / 3
NAMED_IN_GENERAL = 1 / 2
# A head without a name attends to all tokens alike where it spreads over this share of the visible positions.
DIFFUSE = 0.5
SPREAD, MIXED = "all tokens alike", "several tokens"
# Strengths that differ by less count as equal.
CLOSE = 1e-3
# A head whose output is below this share of the residual's norm at every place is "silent".
SILENT = 1e-5
# No name by a statistic that claims that one token among many is selected (`PICKED`) where uniform attention has more
# mass than this: where labels repeat, every label matches.
MOST_CHANCE = 0.2
# Places that name no head, unless answers are read there.
_SKIPPED = (Role.BOS.words, Role.START.words, Role.SEPARATOR.words)


@dataclass(frozen=True, eq=False)
class HeadDescriptions(Shown):
    """Statistics of every head, by the place of the attending position: its role in prompts of a task.

    Prompts are the replicates: positions of a place are averaged within a prompt first. The result holds for these
    prompts and this model; it says nothing about other trained models.

    Shapes:
        mean, error: `[layer head place statistic]`, over prompts; the error is the standard error (NaN for one
                     prompt). NaN where the statistic is not defined.
        chance:      `[place statistic]`, the value for uniform attention over the same positions; 0 for `copying`,
                     1 / number of tokens to choose from for `copying_rate`, NaN for `output_share`.
        n:           `[place statistic]`, prompts in which the statistic is defined.
        ov_copying:  `[layer head]`, see `interp.circuits.composing.ov_copying`.
        composition: `[kind layer head writer_layer writer_head]`, above chance, see `compositions`.

    `output_share`: the norm of the head's output as a share of the residual's that it adds to. `copying`: the logits,
    above the mean over the tokens to choose from, that the head's output adds directly to the token which it attends to
    most, through the last norm at that position's scale. `copying_rate`: how often that token gets the largest logit.
    """

    places: tuple[str, ...]
    statistics: tuple[str, ...]
    answered_at: str
    after_label: str
    mean: Float[Tensor, "layer head place statistic"]
    error: Float[Tensor, "layer head place statistic"]
    chance: Float[Tensor, "place statistic"]
    n: Int[Tensor, "place statistic"]
    ov_copying: Float[Tensor, "layer head"]
    composition: Float[Tensor, "kind layer head writer_layer writer_head"]

    def __repr__(self) -> str:
        return (
            f"HeadDescriptions({self.n_layers} layers of {self.n_heads} heads; places: {', '.join(self.places)}; "
            f"{int(self.n.max())} prompts)"
        )

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.mean.shape[0]

    @property
    def n_heads(self) -> int:
        """Number of query heads per layer."""
        return self.mean.shape[1]

    def value(self, layer: int, head: int, place: Role | str, statistic: str) -> float:
        """Return one mean. Raises `ValueError`, with the choices, for an unknown head, place or statistic.

        >>> describe_heads(run, batch).value(1, 0, Role.OUTPUT_LABEL, "after_matching_label")
        0.97
        """
        self._require(layer, head)
        return float(self.mean[layer, head, self._place(place), self._statistic(statistic)])

    def above_chance(self, layer: int, head: int, place: Role | str, statistic: str) -> float:
        """Return how far the mass, less two standard errors, is on the way from chance (0) to all mass (1).

        NaN where the statistic is not defined, or where chance is all mass. Raises `ValueError` for a statistic that is
        not a mass.
        """
        self._require(layer, head)
        if statistic not in self._masses:
            raise ValueError(f"{statistic!r} is not a mass of attention; those are {', '.join(self._masses)}")
        at = self._place(place), self._statistic(statistic)
        mean, error, chance = float(self.mean[layer, head][at]), float(self.error[layer, head][at]), self.chance[at]
        room = 1 - float(chance)
        return (mean - 2 * (0.0 if math.isnan(error) else error) - float(chance)) / room if room > 1e-6 else math.nan

    def does(self, layer: int, head: int, place: Role | str) -> str | None:
        """Return where the head attends from a place: the strongest statistic that suffices for a name, or None.

        Mass on labels, inputs or outputs in general counts only where no specific statistic suffices.
        """
        for group, least in ((self._specific, NAMED), (self._general, NAMED_IN_GENERAL)):
            named = {s: x for s, x in self._strengths(layer, head, place, group).items() if x >= least}
            if named:
                # Ties go to the first: at output labels induction equals after_matching_label up to rounding.
                best = next(s for s, x in named.items() if x > max(named.values()) - CLOSE)
                return words_of(best, self.after_label)
        return None

    def name(self, layer: int, head: int) -> str:
        """Return the head's name for a picture: "previous token at input and output, itself at output label".

        First what the head does at the place where that has most weight (its strength times the head's output there as
        a share of the residual), with every place at which it does the same. Then what it does where answers are read
        (`answered_at`), if that differs. Starts and separators are left out, unless answers are read there. No place is
        named where the head does the same at all of them. A head without any such statistic is named by its spread.
        "silent" marks a head that writes nothing.
        """
        last = self.answered_at
        counted = [place for place in self.places if place not in _SKIPPED]
        counted = [*counted, *({last} - {*counted})]
        done = {place: self.does(layer, head, place) for place in counted}
        weights = {place: self._weight(layer, head, place) for place, what in done.items() if what}
        silent = all(self.value(layer, head, place, "output_share") < SILENT for place in counted)
        ending = ", silent" if silent else ""
        if not weights:
            return self._shape(layer, head, last) + ending
        best = max(weights, key=lambda place: weights[place])
        if all(what == done[best] for what in done.values()):
            return f"{done[best]}{ending}"
        alike = [place for place, what in done.items() if what == done[best]]
        at = " and ".join([*([", ".join(alike[:-1])] if alike[1:] else []), alike[-1]])
        if done[last] == done[best]:
            return f"{done[best]} at {at}{ending}"
        return f"{done[best]} at {at}, {done[last] or self._shape(layer, head, last)} at {last}{ending}"

    def names(self) -> dict[tuple[int, int], str]:
        """Return every head's name, by (layer, head)."""
        return {(x, h): self.name(x, h) for x in range(self.n_layers) for h in range(self.n_heads)}

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per layer, head, place (column "role") and statistic: mean, error, chance and n."""
        import pandas

        columns = ["layer", "head", "role", "statistic", "mean", "error", "chance", "n"]
        return pandas.DataFrame(list(self._rows()), columns=columns)

    def compositions(self) -> pandas.DataFrame:
        """Return one row per head, q, k or v of it, and head of an earlier layer: their composition above chance."""
        import pandas

        rows = []
        for kind, layer, head, before, writer in self.composition.isfinite().nonzero().tolist():
            score = float(self.composition[kind, layer, head, before, writer])
            rows.append((layer, head, KINDS[kind], before, writer, score))
        return pandas.DataFrame(rows, columns=["layer", "head", "kind", "writer_layer", "writer_head", "above_chance"])

    def to_json(self) -> dict:
        """Return a plain dictionary; NaN becomes None, because JSON has no NaN."""
        heads = []
        for (layer, head), name in self.names().items():
            copying = _finite(float(self.ov_copying[layer, head]))
            heads.append({"layer": layer, "head": head, "name": name, "ov_copying": copying})
        table, links = self.to_dataframe(), self.compositions()
        rows = [{k: _finite(x) for k, x in row.items()} for row in table.to_dict("records")]
        return {
            "answered_at": self.answered_at,
            "named_above": NAMED,
            "heads": heads,
            "statistics": rows,
            "chance_composition_removed": True,
            "compositions": links.to_dict("records"),
        }

    @property
    def _specific(self) -> tuple[str, ...]:
        return tuple(s for s in dict.fromkeys((*SPECIFIC, *TEXT_SPECIFIC)) if s in self.statistics)

    @property
    def _general(self) -> tuple[str, ...]:
        return tuple(s for s in GENERAL if s in self.statistics)

    @property
    def _masses(self) -> tuple[str, ...]:
        return tuple(s for s in self.statistics if s not in MEASURES)

    def _rows(self) -> Iterator[tuple]:
        for layer, head in self.names():
            for p, place in enumerate(self.places):
                for s, statistic in enumerate(self.statistics):
                    numbers = (self.mean[layer, head, p, s], self.error[layer, head, p, s], self.chance[p, s])
                    yield layer, head, place, statistic, *map(float, numbers), int(self.n[p, s])

    def _strengths(self, layer: int, head: int, place: Role | str, group: tuple[str, ...]) -> dict[str, float]:
        chance = self.chance[self._place(place)]
        usable = [s for s in group if s not in PICKED or float(chance[self._statistic(s)]) <= MOST_CHANCE]
        strengths = {s: self.above_chance(layer, head, place, s) for s in usable}
        return {s: x for s, x in strengths.items() if not math.isnan(x)}

    def _weight(self, layer: int, head: int, place: str) -> tuple[float, float]:
        strength = max(self._strengths(layer, head, place, (*self._specific, *self._general)).values())
        return strength * self.value(layer, head, place, "output_share"), strength

    def _shape(self, layer: int, head: int, place: str) -> str:
        return SPREAD if self.value(layer, head, place, "spread") >= DIFFUSE else MIXED

    def _place(self, place: Role | str) -> int:
        name = place.words if isinstance(place, Role) else place
        if name not in self.places:
            raise ValueError(f"no {name} in these prompts; there are {', '.join(self.places)}")
        return self.places.index(name)

    def _statistic(self, name: str) -> int:
        if name not in self.statistics:
            raise ValueError(f"unknown statistic {name!r}; statistics are {', '.join(self.statistics)}")
        return self.statistics.index(name)

    def _require(self, layer: int, head: int) -> None:
        if not (is_index(layer, self.n_layers) and is_index(head, self.n_heads)):
            raise ValueError(
                f"no head L{layer}H{head}; layers are 0 to {self.n_layers - 1}, heads 0 to {self.n_heads - 1}"
            )


def _finite(x: object) -> object:
    return None if isinstance(x, float) and not math.isfinite(x) else x
