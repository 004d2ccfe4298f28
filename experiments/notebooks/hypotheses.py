# %% [markdown]
"""
# What is a label to the model? Three hypotheses, tested

Models that were given a label before each bit, and the same label before each step, do parity past the lengths that
they were trained on. Why? Three answers, and what each predicts, beside a fourth that must
stay possible:

| a label is | trade its **name** | give it another **history** | take it **away** |
|---|---|---|---|
| an **anchor**: an address, equal names find each other | the answer follows the name | nothing | the address is lost |
| a **placeholder**: it stores the result so far | nothing | the answer follows the history | the result is lost |
| a **sink**: attention that has nothing to do rests there | nothing | nothing | attention floods elsewhere |
| **unused** | nothing | nothing | nothing |

Taking labels away tempts most and tells least: all three predict harm. So the battery changes one thing at a time, each
with a matched control, and says *undecided* where the evidence does not do.
"""

# %%
import json
import tempfile
from pathlib import Path

import experiments
import probes.views
from experiments import load
from interp import views
from probes import battery, verdict
from probes.planted import Plan, plant, save_planted

LIVE = False  # True: views to point at and to click, in place of pictures
views.show_live(LIVE)

run = load("parity-aligned-alibi")

# %% [markdown]
"""
## The battery

Every intervention, at a length that training saw (20 bits). The README's verdict takes more prompts and a length past
training, too; this one is a short form.
"""

# %%
measured = battery(run, lengths=(20,), seed=1, prompts=64)
found = verdict(measured)
print(found.label)
for name, role in found.roles.items():
    print(f"{name}: {role.status}, because {role.reason}")

# %% [markdown]
"""
Each role has a status and a reason. The number is *rho*, the share of the answer's margin that the intervention moves:
1 is all of it, 0 nothing. M1 and M2 trade labels of the input and of the scratchpad, M4 moves only the attention of
such a trade, M5 gives labels another history, M6 takes them away in three ways. The evidence that decides:
"""

# %%
deciding = ("swap input labels", "swap output labels", "rename labels", "attention")
deciding += ("history in V at labels", "sink")
for e in found.lengths[0].evidence:
    if e.name in deciding and e.arm != "M7":
        print(f"{e.arm} {e.name}: {e.value}" + (f", matched control {e.control}" if e.control else ""))

# %% [markdown]
"""
Trading labels on either side moves all of the answer or nearly, and so does trading the attention alone. Renaming
labels alike on both sides, giving them another history, and taking them away as places to rest do next to nothing.
That is the anchor's row of predictions.

## How often is such a verdict wrong?

A battery can only be trusted if it was tried where the truth is known. `mnemoscope calibrate` writes mechanisms by hand
into the weights of transformers, some clean, some with noise and superposition, and judges each as if it were a
stranger. A row is what was planted, a column what was said; the right answer is outlined.
"""

# %%
results = Path(experiments.__file__).parent / "results"
calibration = json.loads((results / "calibration.json").read_text(encoding="utf-8"))
probes.views.confusion(calibration["confusion"], calibration["never_tuned"], calibration["expected"])

# %% [markdown]
"""
Counts lie in the outlined cells or under *undecided* and *unresolved*: it sometimes refuses, and named no wrong role.
In numbers:
"""

# %%
for name in ("false present", "false absent", "wrong confident label", "undecided, all"):
    rate = calibration["rates"][name]
    print(f"{name}: {rate['hits']} of {rate['n']}")

# %% [markdown]
"""
The last line is the price of the others. Now our run beside those planted models:
"""

# %%
probes.views.verdict(found, calibration)

# %% [markdown]
"""
In each panel the upper row is this run, and below are planted models that have the role and that lack it. The run's
anchor lies with the models that have one; its placeholder and sink lie with those that do not.

## A stranger

Would the same battery have called *anything* an anchor? Plant a model that solves the same prompts in another way: it
stores running results at labels and finds them by position. What is saved says nothing of how it works.
"""

# %%
planted = plant(Plan("placeholder", "gpt2", longest=12))
with tempfile.TemporaryDirectory() as folder:
    save_planted(planted, Path(folder) / "stranger")
    stranger = verdict(battery(load(Path(folder) / "stranger"), lengths=(12,), seed=1, prompts=64))
print("planted:", planted.truth.label, "| verdict:", stranger.label)
probes.views.verdict(stranger, calibration)

# %% [markdown]
"""
The battery names what was planted: now it is the history that moves the answer, and names do nothing.

## What may be said

A verdict comes with its limits, which belong into every sentence about it.
"""

# %%
print("may be claimed:", found.may_claim)
print("may not be claimed:", found.may_not_claim)

# %% [markdown]
"""
One seed is one model: `mnemoscope verdict` takes several runs at once, and then judges over models.
"""
