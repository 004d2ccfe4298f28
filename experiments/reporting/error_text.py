"""How often verdicts like that of a report are wrong, in short and with all counts."""

from __future__ import annotations

from experiments.reporting.outsider_text import lists_others_built, others_built
from experiments.reporting.reduced import reduced_verdict
from experiments.reporting.text import OPEN
from probes.binding.found import is_decided_alike

# Model types inside which planted models are built.
PLANTED_IN = {"gpt2": "GPT-2", "gpt_neox": "GPT-NeoX"}
PLANTED_LISTS_IN = ("GPT-2", "GPT-NeoX", "Llama")


def how_sure(data: dict, counted: dict, model_type: str = "") -> str:
    """Return in short how often such verdicts are wrong, and over what the intervals are; "" without a judgement.

    `model_type` is the configuration's; the text says where no planted model is of that type.
    """
    if data["verdict"] == "not-applicable":
        return ""
    rate, then, today = counted["rates"]["wrong confident label"], *_versions(data, counted)
    judge = "this procedure" if then == today else f"an earlier version of this procedure ({then})"
    own = "" if then == today else f" The error rate of the present version ({today}) is not measured."
    names_none = f" **{data['verdict']}** names no role." if data["verdict"] in OPEN else ""
    over = "prompts of this one model" if data["replication"] == "prompts" else f"{data['n_models']} models"
    reduced = f" {text}" if (text := reduced_verdict(data, counted)) else ""
    return (
        f"**How sure?**{names_none} On {rate['n']} models that were built by hand (planted) with a known mechanism, "
        f"{judge} gave a wrong confident verdict {rate['hits']} times (95 % interval of the rate {_share(rate)}).{own}"
        f"{_of_other_types(model_type)} {others_built()}{reduced} Intervals are over {over}."
    )


def _versions(data: dict, counted: dict) -> tuple[str, str]:
    """Return the versions of arms and limits of the counts and of the verdict."""
    return counted["margins"]["version"], data["margins"]["version"]


def how_often_wrong(data: dict, counted: dict, model_type: str = "") -> list[str]:
    """Return the counts of wrong verdicts on planted models of known mechanism; `model_type` as in `how_sure`."""
    then, today = _versions(data, counted)
    judge = "The same code" if then == today else f"An earlier version of the arms and limits ({then})"
    rate, never = counted["rates"]["wrong confident label"], counted["rates, never tuned"]["wrong confident label"]
    open_, label = counted["rates"]["undecided, all"], data["verdict"]
    called = {name: row.get(label, 0) for name, row in counted["confusion"].items()}
    right = sum(n for name, n in called.items() if counted["expected"][name] == label)
    sentences = [
        f"{judge} judged {counted['cases']} models with a planted mechanism ({counted['mechanisms']} "
        f"mechanisms, {counted['variants']} variants each). It gave a wrong confident label to "
        f"**{rate['hits']} of {rate['n']}** (95 % interval {_share(rate)}); among mechanisms never used for "
        f"tuning, to {never['hits']} of {never['n']} ({_share(never)}). "
        f"{open_['hits']} of {open_['n']} were left undecided or unresolved."
    ]
    if label in (*OPEN, "not-applicable"):
        sentences.append(f"**{label}** makes no claim about a role, so it is not counted as wrong.")
    elif total := sum(called.values()):
        sentences.append(f"Of {total} planted models that it called **{label}** and nothing else, {right} were.")
    else:
        sentences.append(f"No planted model was called {label}. The counts give no error rate of this verdict.")
    sentences += filter(None, [reduced_verdict(data, counted), others_built(by_round=True)])
    coverage = counted["coverage"]["all"]
    sentences.append(
        f"Nominal 95 % intervals contained the true value in {coverage['covered']} of {coverage['intervals']} cases. "
        f"Planted models are small and built by hand inside {' and '.join(PLANTED_IN.values())}."
        f"{_of_other_types(model_type)} The counts are error rates on these families, not the probability that this "
        "verdict is wrong."
    )
    if then != today:
        sentences.append(
            f"**Caution: the errors were counted with other arms and limits ({then}) than those of the verdict "
            f"({today}). The error rate of this verdict's version is not measured by them.**"
        )
    return sentences


def how_sure_of_list(data: dict, counted: dict) -> str:
    """Return in short how often verdicts on lists are wrong, for a result and `LIST_CALIBRATION`; "" for no verdict."""
    if data["refusal"] is not None:
        return ""
    wrong, counts = counted["rates"]["wrong status"], counted["counts"]["all"]
    text = (
        f"**How sure?** {wrong['n']} models of lists were built by hand (planted), to find items in "
        f"{counted['mechanisms']} ways. On {wrong['hits']} of them this procedure, which was changed after the first "
        f"of them had been judged, called an address or a sink PRESENT or ABSENT wrongly (95 % interval of the rate "
        f"{_share(wrong)}). It named what "
        f"{counts.get('right', 0)} use in full, and left something open for {counts.get('incomplete', 0)}. They are "
        f"small {', '.join(PLANTED_LISTS_IN)} models that read by labels, neighbours or places only. "
        f"{lists_others_built()} Intervals are over prompts of this one model."
    )
    if not is_decided_alike(data):
        text += (
            " **This result was measured by earlier arms**, whose errors were not counted: they called an "
            "address PRESENT or ABSENT on less evidence. `--fresh` measures again."
        )
    return text


def _of_other_types(model_type: str) -> str:
    """Return that no planted model is of this type, as a sentence; "" where some are, or for an unknown type."""
    return f" None of them is a {model_type} model." if model_type and model_type not in PLANTED_IN else ""


def _share(rate: dict) -> str:
    interval = rate["interval"]
    return f"{100 * max(interval['low'], 0):.1f} % to {100 * interval['high']:.1f} %"
