"""Find the finished verdict of the same weights, rules and options as a command line asks for, also on lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.support.console import warn
from experiments.support.finished import (
    Finished,
    find_finished,
    one_length,
    options_said,
    why_other_options,
    why_other_rules,
    why_other_run,
    why_other_weights,
)
from experiments.support.list_results import LISTS
from experiments.support.results import usual_folder, weights_of
from experiments.support.verdict_defaults import PROMPTS, usual_arms
from interp.support.digests import digest_of

if TYPE_CHECKING:
    from interp.models import Run
    from probes.binding import BindingVerdict
    from probes.findings import Verdict

FILE = "verdict.json"


def verdict_options(
    runs: Sequence[Run], lengths: Sequence[int], arms: Collection[str], prompts: int, forced: bool
) -> dict[str, Any]:
    """Return what decides the numbers of a verdict beside the seed, the format and the weights of its first run.

    verdict.json holds it as "options". `lengths` are bits, or digits of both operands.
    """
    options: dict[str, Any] = {"lengths": list(lengths), "arms": sorted(set(arms)), "prompts": prompts}
    options |= {"forced": forced, "labels": _labels(runs[0])}
    if len(runs) > 1:
        options["weights"] = [weights_of(run) for run in runs]
    return options


def options_in_turn(
    runs: Sequence[Run], lengths: Sequence[int], arms: Collection[str], prompts: int | None, usual: int, forced: bool
) -> list[dict[str, Any]]:
    """Return the options with which a finished verdict is looked for, in turn; a new one has the last ones.

    Without `prompts`, a result of `PROMPTS` comes before one of the `usual` number.
    """
    numbers = dict.fromkeys((PROMPTS, usual) if prompts is None else (prompts,))
    return [verdict_options(runs, lengths, arms, number, forced) for number in numbers]


def say_few_prompts(prompts: int | None, usual: int) -> None:
    """Print one line on standard error where a verdict has fewer prompts than `PROMPTS` and none were asked for."""
    if prompts is None and usual < PROMPTS:
        longer = f"--prompts {PROMPTS} takes about {PROMPTS / usual:.0f} times as long, for narrower intervals"
        warn(f"{usual} prompts at each length, as the model is large for a CPU; {longer}")


def finished_verdict(
    runs: Sequence[Run], options: Mapping[str, object], seed: int, out: Path | None, any_lengths: bool = False
) -> tuple[Finished[Verdict] | None, dict[Path, str]]:
    """Return the finished verdict on these runs, or None; and why each file that was looked at before differs.

    Searches the folder of `out`, the usual result folder, and for one run the run's own folder. A result of several
    models must name the same models in the same order. `any_lengths`: where there is none, the result in the run's own
    folder may be of other lengths.
    """
    from probes.stored import verdict_from_json

    run = runs[0]
    own = [Path(run.source)] if len(runs) == 1 else []
    paths = [folder / FILE for folder in (usual_folder(run, out), usual_folder(run), *own)]

    def why_not(asked: Mapping[str, object], data: dict) -> str:
        if reason := why_other_run(run, data, seed) or why_other_rules(data):
            return reason
        names = [r.name for r in runs]
        if data["models"] != names:
            return f"it is of {_listed(data['models'])}, not of {_listed(names)}"
        if reason := why_other_options(run, asked, _made_with(run, asked, data), data["provenance"]):
            return reason
        return why_other_weights(run, data["weights"])

    found, reasons = find_finished(paths, partial(why_not, options), verdict_from_json)
    if found is None and any_lengths:
        beside = {name: value for name, value in options.items() if name != "lengths"}
        found, _ = find_finished([folder / FILE for folder in own], partial(why_not, beside), verdict_from_json)
    return found, reasons


def finished_of_any(
    runs: Sequence[Run], asked: Sequence[dict[str, Any]], seed: int, out: Path | None, any_lengths: bool
) -> tuple[Finished[Verdict] | None, dict[Path, str], dict[str, Any]]:
    """Return what `finished_verdict` does, for the first of several options that has a result, and these options.

    Where `any_lengths` allows results of other lengths, they come after those of all options. Of a file that differs
    from all options, the shortest difference is returned. Without a result, the options are the last ones.
    """
    why = dict[Path, str]()
    for others in (False, True) if any_lengths else (False,):
        for options in asked:
            found, reasons = finished_verdict(runs, options, seed, out, others)
            why |= {path: min(said, why.get(path, said), key=len) for path, said in reasons.items()}
            if found is not None:
                return found, why, options
    return None, why, asked[-1]


def say_lengths(verdict: Verdict, usual: Sequence[int], prompts: int = PROMPTS) -> None:
    """Print one line on standard error where a finished verdict is of other lengths than the usual ones.

    `prompts`: how many these are measured on by default.
    """
    its = [one_length(at.length) for at in verdict.lengths]
    if its != list(usual):
        few = f", on {prompts} prompts" if prompts < PROMPTS else ""
        here, others = (" ".join(map(str, lengths)) for lengths in (its, usual))
        warn(f"it is of length{'s' * (len(its) > 1)} {here}; --lengths {others} measures the usual ones{few}")


def finished_list_verdict(
    run: Run, options: Mapping[str, object], file: str, seed: int, out: Path | None
) -> tuple[Finished[BindingVerdict] | None, dict[Path, str]]:
    """Return the finished verdict on a list or on recall, or None; and why each file that was looked at before differs.

    `options`: task, items, prompts and fillers; the file holds them. Searches the folder of `out`, the usual result
    folder, and the shipped results.
    """
    from probes.binding.stored import binding_verdict_from_json

    paths = [folder / file for folder in (usual_folder(run, out), usual_folder(run), LISTS / run.name)]

    def why_not(data: dict) -> str:
        if reason := why_other_run(run, data, seed):
            return reason
        if reason := why_other_options(run, options, _list_made_with(data), data["provenance"]):
            return reason
        return why_other_weights(run, data["weights"])

    return find_finished(paths, why_not, lambda data: binding_verdict_from_json(run.name, seed, data))


def _list_made_with(data: dict) -> dict[str, object] | None:
    if isinstance(data.get("options"), dict):
        return data["options"]
    if (said := options_said(data["provenance"])) is None:
        return None
    numbers = {name: int(said.get(name, [usual])[0]) for name, usual in (("prompts", PROMPTS), ("fillers", 0))}
    return {"task": data["task"], "items": data["items"], **numbers}


def _made_with(run: Run, options: Mapping[str, object], data: dict) -> dict[str, object] | None:
    """Return the options that a verdict was made with; None where they are unknown.

    Older results do not hold them: they follow from the command, and from what was measured.
    """
    if isinstance(data.get("options"), dict):
        return data["options"]
    if (said := options_said(data["provenance"])) is None or data["n_models"] != 1:
        return None
    return {
        "lengths": [one_length(at["length"]) for at in data["by_length"]],
        "arms": sorted(set(said.get("arms", usual_arms(run)))),
        "prompts": data["prompts"],
        "forced": "forced" in said,
        "labels": options["labels"],
    }


def _labels(run: Run) -> str:
    """Return a digest of the tokens that the prompts consist of."""
    vocabulary = None if run.vocabulary is None else run.vocabulary.to_json()
    return digest_of(vocabulary)[:16]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))[:200]
