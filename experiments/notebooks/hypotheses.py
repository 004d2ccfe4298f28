# %% [markdown]
"""
# Anchor, placeholder or sink: a verdict on the labels

Models with a label before each bit, and the same label before each step of the scratchpad, compute parity past the
trained length. What do the labels do? Three hypotheses and their predictions, with the null hypothesis:

| a label is | swap its **identity** | change the **history** at it | **remove** it |
|---|---|---|---|
| an **anchor**: its identity is an address | the answer follows the identity | no effect | the address is lost |
| a **placeholder**: it stores a result | no effect | the answer follows the history | the result is lost |
| a **sink**: it takes attention and carries nothing | no effect | no effect | attention goes elsewhere |
| **unused** | no effect | no effect | no effect |

Removal does not separate the three: each predicts a loss. The battery therefore changes one variable at a time, with a
matched control each. Where the evidence is not sufficient, the verdict is *undecided*.
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
from probes.arms.naming import arm_title, with_arm_names
from probes.planted import Plan, plant, save_planted

LIVE = False  # True: interactive views instead of pictures
views.show_live(LIVE)

run = load("parity-aligned-alibi")

# %% [markdown]
"""
## The battery

All interventions, at a trained length (20 bits). The stored verdict of this run has more prompts and also a length past
training; this is a short form.
"""

# %%
measured = battery(run, lengths=(20,), seed=1, prompts=64)
result = verdict(measured)
print(result.label)
for name, role in result.roles.items():
    print(f"{name}: {role.status}, because {with_arm_names(role.reason)}")

# %% [markdown]
"""
Each role has a status and a reason. The effect *rho* is the share of the answer's margin that an intervention moves: 1
is all of it, 0 is none. The evidence that decides:
"""

# %%
deciding = ("swap input labels", "swap output labels", "rename labels", "attention")
deciding += ("history in V at labels", "sink")
for e in result.lengths[0].evidence:
    if e.name in deciding and e.arm != "M7":
        print(f"{arm_title(e.arm)}, {e.name}: {e.value}" + (f", matched control {e.control}" if e.control else ""))

# %% [markdown]
"""
Swapping labels on either side (M1 input swap, M2 output swap) moves nearly the whole margin, and so does patching only
the attention of such a swap (M4 routes). Renaming labels on both sides (M3 renaming), another history at labels (M5
history), and removing labels from heads in which they carry nothing (M6 removal) have almost no effect. This is the row
of the anchor.

## How often is such a verdict wrong?

`mnemoscope calibrate` plants known mechanisms in the weights of transformers, some with noise and superposition, and
judges each without knowing what was planted. Rows: the planted mechanism. Columns: the verdict. The right one is
outlined.
"""

# %%
results = Path(experiments.__file__).parent / "results"
calibration = json.loads((results / "calibration.json").read_text(encoding="utf-8"))
probes.views.confusion(calibration["confusion"], calibration["never_tuned"], calibration["expected"])

# %% [markdown]
"""
Cells off the outline are *undecided* or *unresolved*, not another role. In numbers:
"""

# %%
for name in ("false present", "false absent", "wrong confident label", "undecided, all"):
    rate = calibration["rates"][name]
    print(f"{name}: {rate['hits']} of {rate['n']}")

# %% [markdown]
"""
These are error rates on small planted models, not on all models. This run beside the planted models:
"""

# %%
probes.views.verdict(result, calibration)

# %% [markdown]
"""
In each panel the upper row is this run. Below are planted models that have the role, and planted models that do not.

## A model with another mechanism

Would the battery call any model an anchor? Plant a model that solves the same prompts differently: it stores running
parities at labels and finds them by position. The saved folder does not name the mechanism.
"""

# %%
planted = plant(Plan("placeholder", "gpt2", longest=12))
with tempfile.TemporaryDirectory() as folder:
    save_planted(planted, Path(folder) / "model")
    other = verdict(battery(load(Path(folder) / "model"), lengths=(12,), seed=1, prompts=64))
print("planted:", planted.truth.label, "| verdict:", other.label)
probes.views.verdict(other, calibration)

# %% [markdown]
"""
The verdict is the planted mechanism: the history moves the answer, identities do not.

## What may be claimed

A verdict states its scope:
"""

# %%
print("may be claimed:", with_arm_names(result.may_claim))
print("may not be claimed:", with_arm_names(result.may_not_claim))

# %% [markdown]
"""
One trained model is one observation. `mnemoscope verdict` with several runs judges over models.
"""
