"""Paragraphs of a report that explain its words and how it is read."""

from __future__ import annotations

from experiments.reporting import shown

LABELS = (
    "A label is a token that stands beside each bit and each step of the task. It can be an **anchor** (which label it "
    "is tells the model where to read), a **placeholder** (a result is stored at its position, which later tokens "
    "read), a **sink** (it takes attention and carries nothing), a mixture of these roles, or unused. Length is the "
    "number of bits, in addition that of digits."
)
ABOUT = (
    "The parity of some bits is 1 if an odd number of them is 1. A transformer that computes it step by step must find "
    "bit i in its context at step i. Ebrahimi, Panchal and Memisevic (COLM 2024, arXiv 2408.05506) found that it "
    "works on more bits than it was trained on when the same token, a mnemonic, precedes bit i and step i. This report "
    "calls such a token a label and tests what it does inside the model."
)
READING = "**How to read it.** "
DECIDED = (
    "**How each role was decided.** PRESENT is above the limit of {limit:g} and above its control, ABSENT within "
    "±{limit:g}; INDETERMINATE is neither, and UNRESOLVED is an effect that no role explains. Intervals are t "
    "intervals over prompts, 95 % for each by itself, unless a text says that one is simultaneous with others; a lost "
    "accuracy has a standard error of at least 1/n over n prompts. The decision uses the simultaneous intervals, which "
    "are wider: an interval that is printed within the limit may be INDETERMINATE. The lead is the right answer's "
    "logit above the other's; tables and figures call it the margin. V and K are the values and keys of attention."
)
# What the words of the table of evidence mean, by the arm whose rows have them; "" for all arms.
TERMS = {
    "": "**Terms of the table.** rho: the change of the lead, over that of editing the bit that is read; 0 is none, 1 "
    "as much. Each row is an effect by itself, and rows do not add up: of a route through several places, each carries "
    "all.",
    "M1": "M1 input swap: `either side` is the mean of M1 and M2 output swap; `whatever is found` reads only swaps of "
    "labels with the same bit and the same parity so far, which should change nothing.",
    "M6": "M6 removal: `idle heads` are heads that carry nothing from labels; `renormalise` removes labels and lets "
    "other tokens share their attention, `null` leaves their attention to a key that gives zero, `mean` replaces their "
    "values by the mean. `denominator, bias, value` is the part of the loss that is not due to what single labels "
    "hold; `margin held` is how far the lead moves, where moves up and down cancel.",
    "presence": "largest presence effect: a `key of equal score` takes the attention that labels got, and holds the "
    "mean of their values; what it repairs or restores needed the attention, and not the labels. `answers that labels "
    "do not inform` stay the same with keys and values of labels from other prompts.",
    "shares": "Shares: `normalisation` is attention that rests on labels; `interaction` is what factors do together "
    "beyond the sum of their effects alone. It is already divided among the other rows.",
    "M9": "M9 subspaces: `follows + keeps - 1` is the share of answers that change with an interchange of the subspace "
    "where they should, plus the share that stay where they should, minus 1; 0 is no effect. The "
    "control is measured once, at the length of the search.",
    "M10": "M10 mistakes: `own mistakes` is the share of the model's wrong labels after which it uses the bit of the "
    "label that it wrote; the control is the share whose answer follows the step.",
    "M11": "M11 offsets: the control is the share of steps that another bit flips.",
    "M12": "M12 backups: the loss with later attention frozen; beside it, as control, the one with it left free.",
}
# Name, heading, how it is read, and what it shows, of the sections after the maps.
REST = (
    (
        "attention",
        "Attention of the important heads",
        "An attention weight is the share that a head takes from one token (the source) when it writes at another (the "
        "destination). It shows where a head reads, not what it contributes: a weight can be large where the value is "
        "zero. The same label is the label in the input with the same token.",
        shown.attention_shows,
    ),
    (
        "patch",
        "Activation patching",
        "One activation at a time of the corrupted run is replaced by that of the clean run. Blue moves the lead (the "
        "logit of the right answer above the other; in the figures: margin) toward the clean answer. A patch that "
        "restores the answer shows that the activation suffices on these prompts, not that it is the only route.",
        shown.patch_shows,
    ),
    (
        "probes",
        "What probes decode at the labels",
        "A probe is a linear classifier on activations (of the step number, a linear regression; its score is R2). It "
        "shows what is decodable, not what is used. A score counts only clearly above its matched control and above "
        "the same probe on a model with random weights.",
        shown.probes_show,
    ),
    (
        "circuit",
        "Circuit",
        "A circuit is a set of edges that should keep the model's behaviour when all other edges carry a corrupted "
        "prompt. Faithfulness is the share of the lead (in the figure: margin) that it keeps. Other circuits may be "
        "equally faithful.",
        shown.circuit_shows,
    ),
)


def terms_in(data: dict) -> str:
    """Return what the words of a verdict's table of evidence mean, of the arms that it has."""
    found = {"", *(row["arm"] for row in data["evidence"])}
    return " ".join(text for code, text in TERMS.items() if code in found)
