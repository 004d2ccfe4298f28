"""The numbers in the prose of the READMEs on pretrained models, by name, as `experiments.tables.numbers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

from experiments.drawing.zoo import family_of
from experiments.grid import PRETRAINED
from experiments.tables.of_files import (
    ADAPTED_FEW,
    ADAPTED_NUMBERS,
    ADAPTED_PAST,
    ADAPTED_VERDICT,
    FOLDER,
    apart_in_both_types,
    evaluated,
    evidence_at,
    followed_on_list,
    largest_effects,
    learned_in_300_steps,
    left_by_order,
    millions_of_parameters,
    minutes_of_lists,
    minutes_of_verdict,
    on_list,
    other_labels,
    shares_on_maps,
)
from experiments.tables.of_zoo import at_ends, listed
from interp.models.adapters import ADAPTER_WEIGHTS
from interp.models.names import SHIPPED, ZOO

# Who writes the labels.
MODES = ("forced", "written")
# The family of the fine-tuned models in results of the zoo.
TUNED_FAMILY = family_of(PRETRAINED)
# Format and bits of exact match of the fine-tuned models, labels given, that the text quotes.
TUNED = (("aligned", 60),)
# Evaluations of SmolLM2-135M with the adapters among the shipped runs, by format.
ADAPTED = {
    "aligned": SHIPPED / "smollm2-parity-aligned" / "evaluation.json",
    "scratchpad": SHIPPED / "smollm2-parity-scratchpad" / "evaluation.json",
}
# The same at 80 and 100 bits.
ADAPTED_FAR = {form: FOLDER / "recipes" / f"smollm2-parity-{form}-accuracy-100.json" for form in ADAPTED}
# Evaluations of Gemma 3 270M with adapters, by format and who writes the labels.
SECOND = {
    name: (ZOO / f"parity-{form}-gemma3-270m-lora4-seed1" / "evaluation.json", mode)
    for name, form, mode in (
        ("aligned", "aligned", "forced"),
        ("written", "aligned", "written"),
        ("scratchpad", "scratchpad", "forced"),
    )
}
# The pretrained models whose lists are judged, by how the names of their numbers begin; kinds of label and numbers of
# items in the text.
BASES = {"list": "smollm2-135m", "list-gemma3": "gemma3-270m"}
LISTED = (*((kind, n) for kind in ("letters", "numerals", "bullets") for n in (6, 12)), ("no-labels", 6))


def _spread(*arguments, **options) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest of what `listed` returns."""
    values = listed(*arguments, **options)
    return min(values), median(values), max(values)


def _at_gap(gap: int) -> list[float]:
    """Return exact match at 40 bits of the seeds with some fillers after a label, labels given, then written."""
    return [value for mode in MODES for value in listed(f"parity-gap{gap}-{TUNED_FAMILY}", 40, mode=mode)]


def _steps_not_learned(configuration: str) -> list[float]:
    """Return the step accuracy of the first seed at 5 and 10 digits, although it did not learn them."""
    return [listed(configuration, digits, "step", learned=False)[0] for digits in (5, 10)]


def _below_aligned() -> tuple[int, int]:
    """Return how many numeric seeds are right in fewer prompts of 60 bits than each aligned one, and of how many."""
    numeric, aligned = (listed(f"parity-{form}-{TUNED_FAMILY}", 60) for form in ("numeric", "aligned"))
    return sum(value < min(aligned) for value in numeric), len(numeric)


# Decimal places and values, by name.
OF_PRETRAINED: dict[str, tuple[int, Callable[[], Iterable[float]]]] = {
    **{
        f"{name}-{kind}-{items}": (2, partial(on_list, base, f"list-{kind}", items))
        for name, base in BASES.items()
        for kind, items in LISTED
    },
    **{f"tuned-sum-{n}": (3, partial(listed, f"addition-aligned-{TUNED_FAMILY}", n)) for n in (14, 20)},
    **{
        f"tuned-sum-{name}": (3, partial(_steps_not_learned, f"addition-{form}-{TUNED_FAMILY}"))
        for name, form in (("bare", "none"), ("separate", "nonaligned"))
    },
    "tuned-sum-written-14": (3, partial(listed, f"addition-aligned-{TUNED_FAMILY}", 14, mode="written")),
    **{f"tuned-gap{gap}": (3, partial(_at_gap, gap)) for gap in (1, 8)},
    "tuned-sum-short": (3, learned_in_300_steps),
    "list-minutes": (1, minutes_of_lists),
    "list-types": (3, apart_in_both_types),
    "followed": (2, partial(followed_on_list, "smollm2-135m", "list-letters", 6)),
    "maps-pretrained": (2, partial(shares_on_maps, "maps-pretrained")),
    "adapted-order": (2, left_by_order),
    "adapted-others": (2, other_labels),
    "adapted-past-others": (2, partial(other_labels, ADAPTED_PAST)),
    "adapted-largest": (2, partial(largest_effects, ADAPTED_VERDICT, 20)),
    "adapted-few-largest": (2, partial(largest_effects, ADAPTED_FEW, 40)),
    "adapted-few-minutes": (1, minutes_of_verdict),
    **{f"adapted-{name}": (2, partial(evidence_at, *which)) for name, which in ADAPTED_NUMBERS.items()},
    "lora-parameters": (2, lambda: [millions_of_parameters(SHIPPED / "smollm2-parity-aligned" / ADAPTER_WEIGHTS)]),
    **{
        f"lora-{form}-{mode}": (3, partial(evaluated, path, "exact", mode, (10, 20, 25, 30, 40, 60)))
        for form, path in ADAPTED.items()
        for mode in (MODES if form == "aligned" else ("forced",))
    },
    **{
        f"lora-far-{form}-{mode}": (3, partial(evaluated, path, "exact", mode, (80, 100)))
        for form, path in ADAPTED_FAR.items()
        for mode in (MODES if form == "aligned" else ("forced",))
    },
    "lora-far-steps": (
        3,
        lambda: [x for m in MODES for x in evaluated(ADAPTED_FAR["aligned"], "step", m, [100])],
    ),
    **{
        f"gemma3-{name}": (3, partial(evaluated, path, "exact", mode, (10, 20, 25, 30, 40, 60)))
        for name, (path, mode) in SECOND.items()
    },
    **{
        f"tuned-{form}-{length}": (3, partial(listed, f"parity-{form}-{TUNED_FAMILY}", length))
        for form, length in TUNED
    },
    **{f"tuned-hints-{n}": (3, partial(listed, f"parity-hints-{TUNED_FAMILY}", n)) for n in (40, 60)},
    "tuned-hints-median": (
        3,
        lambda: [median(listed(f"parity-{form}-{TUNED_FAMILY}", 60)) for form in ("hints", "aligned")],
    ),
    "tuned-hints-written-40": (3, partial(listed, f"parity-hints-{TUNED_FAMILY}", 40, mode="written")),
    "tuned-scratchpad-40": (3, lambda: [max(listed(f"parity-scratchpad-{TUNED_FAMILY}", 40))]),
    # Exact match of the worst, the median and the best seed with numerals.
    **{f"tuned-numeric-{n}": (3, partial(_spread, f"parity-numeric-{TUNED_FAMILY}", n)) for n in (40, 60)},
    "tuned-numeric-written-40": (3, partial(_spread, f"parity-numeric-{TUNED_FAMILY}", 40, mode="written")),
    "tuned-numeric-below": (0, _below_aligned),
    "tuned-ends-60": (3, lambda: at_ends(listed(f"parity-aligned-{TUNED_FAMILY}", 60))),
    "tuned-written-40": (3, lambda: [min(listed(f"parity-aligned-{TUNED_FAMILY}", 40, mode="written"))]),
}
