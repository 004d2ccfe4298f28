"""Measure the arms of lists by interchange on spans, with matched controls and intervals over prompts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.resolve import AnyModel, raw_of
from interp.patching import Interchange, interchange, logit_diff
from interp.support.finite import NotFinite
from interp.tasks import Prompts
from probes.binding.edits import ARMS, Absent, answer_traded, edit_of
from probes.binding.sinks import SINKS, sink_effects
from probes.binding.trials import Trial
from probes.evidence import Interval
from probes.intervals import ratio, wilson

# Names of what is measured per prompt: whether the answer leads the target's value, and, after an arm's name, whether
# the target's value leads under the arm instead.
LEADS, FOLLOWS = "leads", ": follows"
# A model whose interval of accuracy reaches below this does not do the task.
COMPETENCE = 0.80


@dataclass(frozen=True)
class Share:
    """The change of the answer margin under an arm, over that of trading the answers, beside its matched control.

    0: the answer stays. 1: the answer is the target's, as if the values were traded. `excess` is arm minus control.
    `follows`: of the prompts in which the answer leads the target's value, the share in which it no longer does under
    the arm. None where it was not measured.
    """

    value: Interval
    control: Interval
    excess: Interval
    follows: float | None = None

    def __str__(self) -> str:
        return f"{self.value}  control {self.control}  excess {self.excess}"

    def __repr__(self) -> str:
        return f"Share({self})"

    def to_json(self) -> dict:
        """Return three intervals, and `follows` where it was measured."""
        intervals = {name: getattr(self, name).to_json() for name in ("value", "control", "excess")}
        return intervals if self.follows is None else {**intervals, "follows": self.follows}


@dataclass(frozen=True)
class Binding:
    """What was measured on one model, task and number of items.

    `shares` and `sinks` are empty where the model cannot do the task, with the reason in `refusal`. `left_out` has
    the reason for each arm that the template does not have. `remainder` is 1 minus the share of all arms together.
    `accuracy` is over `posed` prompts, everything else over the first `prompts` of them. `carried` is the share of the
    full effect that is lost when the values of a candidate for a sink become their mean.
    """

    task: str
    items: int
    posed: int
    prompts: int
    seed: int
    accuracy: Interval
    level: float
    shares: dict[str, Share] = field(default_factory=dict)
    sinks: dict[str, Share] = field(default_factory=dict)
    carried: dict[str, Interval] = field(default_factory=dict)
    remainder: Interval | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {share.value}" for name, share in {**self.shares, **self.sinks}.items())
        refused = self.refusal if self.competent else "not competent"
        said = f"; over {self.prompts}: {measured}" if measured else f"; {refused}"
        return f"Binding({self.task!r}, {self.items} items, {self.posed} prompts, accuracy {self.accuracy}{said})"

    @property
    def competent(self) -> bool:
        """Whether the model does the task: the interval of its accuracy is above the gate."""
        return self.accuracy.low >= COMPETENCE

    @property
    def is_short_of_prompts(self) -> bool:
        """Whether the accuracy is above the gate, and only its interval over too few prompts reaches below."""
        return not self.competent and self.accuracy.value >= COMPETENCE


@dataclass(frozen=True, eq=False)
class Group:
    """What was measured on the prompts of one trial: a number per prompt by name, and why other arms are left out."""

    values: dict[str, Float[Tensor, " batch"]]
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Return the numbers as lists; they are float64, which JSON keeps exactly."""
        return {"values": {name: x.tolist() for name, x in self.values.items()}, "left_out": self.left_out}

    @classmethod
    def from_json(cls, data: dict) -> Group:
        """Return the group that `to_json` wrote."""
        values = {name: torch.tensor(x, dtype=torch.float64) for name, x in data["values"].items()}
        return cls(values, data["left_out"])


def measure_binding(
    model: AnyModel,
    trials: Sequence[Trial],
    task: str = "template",
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
    prompts: int | None = None,
    recall: Callable[[str, Callable[[], Group]], Group] = lambda name, measure: measure(),
) -> Binding:
    """Measure accuracy and, where the model can do the task, all arms, sinks and their controls.

    Accuracy is that of the most likely token among all, over all prompts. The arms are measured on about `prompts` of
    them, the first of each trial (None: on all). `step` is called with the name of each group of prompts; `recall` gets
    that of each piece of work, and measures it or returns what an earlier process kept of it. Findings hold together at
    95 % (Bonferroni over the ways to one: PRESENT and ABSENT of each arm and sink, and what a sink carries; a way that
    needs two intervals errs at most as often as one of them). Prompts that repeat another one of their trial are left
    out, with a warning: intervals over prompts would count them as new.
    """
    if not trials:
        raise ValueError("there are no trials")
    given, trials = trials, [trial.distinct() for trial in trials]
    if repeated := sum(len(a.lookups.prompts) - len(b.lookups.prompts) for a, b in zip(given, trials, strict=True)):
        warnings.warn(f"{repeated} prompts repeat others and are left out", stacklevel=2)
    n, items = sum(len(trial.lookups.prompts) for trial in trials), trials[0].lookups.n_items
    step("accuracy")
    rights = [recall(f"accuracy-{k}", partial(_accuracy, model, trial)) for k, trial in enumerate(trials)]
    right = torch.cat([group.values["right"] for group in rights])
    some = trials if prompts is None else [trial.first(-(-prompts // len(trials))) for trial in trials]
    used = sum(len(trial.lookups.prompts) for trial in some)
    level = 1 - 0.05 / (2 * len(ARMS) + 3 * len(SINKS))
    estimate = wilson(float(right.sum()), n)
    found = Binding(task, items, n, used, seed, estimate, level)
    if not found.competent:
        reason = f"the model gives the right value in {estimate} of {n} prompts; the lower end must reach {COMPETENCE}"
        given = torch.cat([group.values["given"] for group in rights])[right == 0].long().tolist()
        if given:
            token, times = Counter(given).most_common(1)[0]
            reason += f"; its commonest wrong answer is {trials[0].lookups.prompts.symbol(token)!r} ({times} of {n})"
        return replace(found, refusal=reason)
    drops: dict[str, list[Tensor]] = {}
    left_out: dict[str, str] = {}
    for k, trial in enumerate(some):
        step(f"item {trial.query} to {trial.target}")
        group = recall(f"arms-{k}", partial(_arms, model, trial))
        left_out |= group.left_out
        for name, values in group.values.items():
            drops.setdefault(name, []).append(values)
    return _summed(found, drops, left_out)


def _accuracy(model: AnyModel, trial: Trial) -> Group:
    """Return the most likely token after each prompt, and whether it is the value asked for."""
    from interp.forward import predict

    prompts = trial.lookups.prompts
    logits = predict(raw_of(model), prompts, torch.tensor([prompts.n_pos]))
    given = logits[:, -1].argmax(dim=-1).cpu()
    right = given == trial.lookups.answer(trial.query).cpu()
    return Group({"right": right.double(), "given": given.double()})


def _arms(model: AnyModel, trial: Trial) -> Group:
    """Return what every arm, sink and control takes from the answer's margin, per prompt, and if it then is below 0."""
    left_out: dict[str, str] = {}
    entries = _entries(trial, left_out)
    metric = logit_diff(trial.lookups.answer(trial.query), trial.lookups.answer(trial.target))
    effect = interchange(model, trial.lookups.prompts, entries, metric)
    measured = dict(zip(entries, effect.base - effect.values, strict=True))
    measured[LEADS] = effect.base > 0
    measured |= {f"{arm}{FOLLOWS}": (effect.base > 0) & (effect.values[k] < 0) for k, arm in enumerate(entries)}
    measured |= sink_effects(model, trial, metric, left_out)
    return Group({name: values.double().cpu() for name, values in measured.items()}, left_out)


def _entries(trial: Trial, left_out: dict[str, str]) -> dict[str, list[Interchange]]:
    """Return every arm and control as an intervention, the full effect first."""
    base = trial.lookups.prompts
    entries: dict[str, list[Interchange]] = {"full": [_put(base, answer_traded(trial))]}
    for arm in ARMS:
        try:
            edit = edit_of(trial, arm)
        except Absent as reason:
            left_out[arm] = str(reason)
            continue
        entries |= {arm: [_put(base, edit.tokens)], f"{arm} control": [_put(base, edit.control)]}
    return entries


def _put(base: Prompts, tokens: Int[Tensor, "batch pos"]) -> Interchange:
    """Return the interchange of the embeddings at the positions that an edit changes."""
    changed = (tokens != base.tokens).any(dim=0, keepdim=True)
    return Interchange("resid_pre", base.with_tokens(tokens), at=changed, layers=(0,))


def _summed(found: Binding, drops: dict[str, list[Tensor]], left_out: dict[str, str]) -> Binding:
    """Return the shares of the full effect; an arm must be measured in every group of prompts."""
    strata = torch.cat([torch.full((len(x),), k) for k, x in enumerate(drops["full"])])
    full = torch.cat(drops["full"])
    whole = {name: torch.cat(parts) for name, parts in drops.items() if len(parts) == len(drops["full"])}

    def share(top: Tensor) -> Interval:
        return ratio(top, full, found.level, strata)

    def follows(name: str) -> float | None:
        if f"{name}{FOLLOWS}" not in whole or not whole[LEADS].any():
            return None
        return float(whole[f"{name}{FOLLOWS}"].sum() / whole[LEADS].sum())

    def shares(names: Sequence[str]) -> dict[str, Share]:
        measured = [name for name in names if name in whole]
        return {
            name: Share(
                share(whole[name]),
                share(whole[f"{name} control"]),
                share(whole[name] - whole[f"{name} control"]),
                follows(name),
            )
            for name in measured
        }

    try:
        arms, sinks = shares(tuple(ARMS)), shares(SINKS)
        carried = {sink: share(whole[f"{sink} carried"]) for sink in sinks}
        remainder = share(full - whole["joint"]) if "joint" in whole else None
    except (ValueError, NotFinite) as error:
        return replace(found, left_out=left_out, refusal=str(error))
    return replace(found, shares=arms, sinks=sinks, carried=carried, remainder=remainder, left_out=left_out)
