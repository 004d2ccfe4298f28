"""What `mnemoscope patch` patches: clean and corrupted prompts, the metric and the positions, on a task or on text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.support.run_checks import check_posed, check_runs, or_else
from experiments.support.text_prompts import GIVE_TEXT, one_or_each

if TYPE_CHECKING:
    from experiments.commands.patch import PatchCommand
    from interp.models import Run
    from interp.patching.metric import MetricLike
    from interp.tasks import Batch, Prompts

# Step and partner that are used at lengths that have them.
USUAL_STEP, USUAL_PARTNER = 10, 5
# Prompts that are drawn per prompt in which two steps must differ; half of random prompts do.
OVERSAMPLE, SPARE = 8, 64
# Effects that are printed and listed in the result.
LARGEST = 10
# Corruptions that swap the labels of two steps.
SWAPS = ("swap_input_labels", "swap_output_labels")
# Answers to text that a metric does not need.
NOT_READ = {"kl": ("answer", "other"), "probability": ("other",), "accuracy": ("other",)}
# Options that only tasks have, with their defaults.
OF_TASKS = {"length": 20, "step": None, "partner": None, "corrupt": "flip_input", "prompts": 16, "format": None}


@dataclass(frozen=True, eq=False)
class PatchInputs:
    """Prompts of one layout, what is measured on them, and where they are patched (None: at every position)."""

    clean: Prompts
    corrupted: Prompts
    metric: MetricLike
    places: list | None


def inputs_of(run: Run, options: PatchCommand) -> PatchInputs:
    """Return the inputs that the options mean. Raises `ValueError` for options that do not go together."""
    if options.is_text:
        pair = options.text_pair(run)
        clean, corrupted = pair.clean, pair.corrupted
        metric = text_metric(options, clean)
    else:
        with or_else(GIVE_TEXT):
            run.require_task()
        clean, corrupted = task_pair(run, options)
        metric = task_metric(run, options, clean)
    return PatchInputs(clean, corrupted, metric, places_of(options, clean))


def with_steps(options: PatchCommand) -> PatchCommand:
    """Return options whose --step and --partner are numbers: 10 and 5 where the length has them, else near its end."""
    step, partner = options.step, options.partner
    if step is None:
        step = max(1, min(USUAL_STEP, options.length))
    if partner is None:
        partner = min(USUAL_PARTNER, options.length)
        if partner == step:
            partner = step - 1 if step > 1 else step + 1
    return replace(options, step=step, partner=partner)


def check_options(options: PatchCommand) -> None:
    """Raise `ValueError` for options that are wrong whatever the model is; imports no library.

    Options of text and of tasks do not mix, and text needs an answer.
    """
    from experiments.support.option_checks import check_engine, check_positive, check_seed
    from interp.sites import PATCH_SITES, require_site

    check_engine(options.workers, options.engine, options.gpus)
    check_seed(options.seed)
    require_site(options.site, PATCH_SITES, "patch")
    check_runs([options.name], options.format)
    if not options.is_text:
        check_positive(options, "prompts", "length")
        if options.partner is not None and options.corrupt not in SWAPS:
            raise ValueError(f"--partner is for --corrupt {' and '.join(SWAPS)}; leave it out")
        with or_else(GIVE_TEXT):
            check_posed([options.name], options.format)
        return
    if given := [name for name, default in OF_TASKS.items() if getattr(options, name) != default]:
        raise ValueError(f"--{given[0]} is for tasks; leave it out with --clean, --corrupted, --answer and --other")
    for name in ("clean", "corrupted"):
        if not getattr(options, name):
            raise ValueError(f"--{name} is missing: patching text needs --clean and --corrupted")
    options.check_pairs()
    if not options.answer and options.metric != "kl":
        raise ValueError(f'--metric {options.metric} needs --answer, such as --answer " Mary"')
    if not options.other and options.metric == "logit_diff":
        raise ValueError('--metric logit_diff needs --other, such as --other " John"; or use --metric probability')
    if given := [name for name in NOT_READ.get(options.metric, ()) if getattr(options, name)]:
        raise ValueError(f"--metric {options.metric} does not read --{given[0]}; leave it out")


def text_metric(options: PatchCommand, clean: Prompts) -> MetricLike:
    """Return the metric of --answer and --other at the last position."""
    from interp.patching import answer_metrics as metrics

    if options.metric == "kl":
        return metrics.kl(clean)
    answer: Any = one_or_each(options.answer)
    match options.metric:
        case "logit_diff":
            return metrics.logit_diff(answer, one_or_each(options.other))
        case name:
            return getattr(metrics, name)(answer)


def task_pair(run: Run, options: PatchCommand) -> tuple[Batch, Batch]:
    """Return clean prompts of the run's task and their counterfactuals, as --corrupt says."""
    from interp.tasks import Role, counterfactual

    options = with_steps(options)
    assert options.step is not None
    assert options.partner is not None
    clean = run.sample(options.prompts, options.length, options.seed)
    match options.corrupt:
        case "flip_input":
            return clean, counterfactual.flip_input(clean, options.step)
        case "redraw":
            return clean, counterfactual.redraw(clean, options.seed + 1)
        case _:
            role = Role.INPUT_LABEL if options.corrupt == "swap_input_labels" else Role.OUTPUT_LABEL
            clean = unequal_inputs(run, options, options.step, options.partner)
            return clean, counterfactual.swap_labels(clean, options.step, options.partner, role=role)


def unequal_inputs(run: Run, options: PatchCommand, step: int, partner: int) -> Batch:
    """Return prompts whose inputs at two steps differ; where they are equal, swapping labels changes no answer."""
    from interp.tasks import Role

    if step == partner:
        raise ValueError(f"--partner must be another step than --step; both are {step}, so there is nothing to swap")
    many = run.sample(OVERSAMPLE * options.prompts + SPARE, options.length, options.seed)
    first, second = (many.tokens[:, many.at(Role.INPUT, s)[0]] for s in (step, partner))
    rows = (first != second).nonzero().flatten()[: options.prompts]
    assert len(rows) == options.prompts, "half of random prompts have unequal bits"
    return many.rows(rows)


def task_metric(run: Run, options: PatchCommand, clean: Batch) -> MetricLike:
    """Return the metric of the answer at --step."""
    from interp import patching
    from interp.forward import predict
    from interp.tasks import Role

    step = with_steps(options).step
    if options.metric == "kl":
        reference = predict(run.raw, clean, clean.at(Role.OUTPUT, step))
        return patching.kl(clean, reference, step)
    if options.metric == "logit_diff" and len(clean.format.outputs) > 2:
        raise ValueError(f"{clean.format} has more than two answers; use --metric probability, accuracy or kl")
    return getattr(patching, options.metric)(clean, step)


def places_of(options: PatchCommand, prompts: Prompts) -> list | None:
    """Return the places that --positions names: indices, and for tasks roles and role:step."""
    from interp.patching import Joint
    from interp.tasks import Role

    roles = {role.name.lower(): role for role in Role} if prompts.role is not None else {}

    def place(text: str) -> Any:
        role, colon, step = text.partition(":")
        if text.isdecimal():
            return int(text)
        if role not in roles or (colon and not step.isdecimal()):
            choices = f"an index, a role ({', '.join(roles)}) or role:step" if roles else "an index from 0"
            raise ValueError(f"unknown position {text!r}; give {choices}")
        return (roles[role], int(step)) if colon else roles[role]

    if not options.positions:
        if options.joint:
            raise ValueError("--joint needs --positions")
        return None
    places = [place(text) for text in options.positions]
    return [Joint(*places)] if options.joint else places
