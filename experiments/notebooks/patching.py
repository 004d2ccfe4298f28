# %% [markdown]
"""
# Which activation carries the answer? Activation patching

A small transformer does parity with a scratchpad. Its prompt gives every bit a **label**, a token drawn at random,
and the scratchpad writes the same labels before its running parities:

`>>> M17 0 M4 1 … === M17 0 M4 1 …`

What does a label do for the step that it stands before? Two prompts that differ in *one* thing answer that. We run
the model on both, move one activation from one run into the other, and see whether the answer follows.
"""

# %%
from experiments import load
from interp import views
from interp.patching import Knockout, Receiver, Sender, knock_out, logit_diff, patch, path_patch
from interp.tasks import Role, counterfactual

LIVE = False  # True: views to point at and to click, in place of pictures
views.show_live(LIVE)

run = load("parity-aligned-alibi")
batch = run.sample(batch_size=64, length=25, seed=0)

# %% [markdown]
"""
## A clean and a corrupted prompt

In the corrupted prompt, the *scratchpad's* labels of steps 10 and 20 trade places. Bits and answers stay. If the
model takes the bit that follows the matching label in the input, step 20 now takes bit 10, so we keep the prompts in
which these two bits differ: only there can the answer change.
"""

# %%
bits = batch.tokens[:, batch.at(Role.INPUT)]
clean = batch.rows((bits[:, 9] != bits[:, 19]).nonzero().flatten())
corrupted = counterfactual.swap_labels(clean, 20, 10, role=Role.OUTPUT_LABEL)
metric = logit_diff(clean, step=20)  # logit of the right answer at step 20, less that of the other one

for name, prompts in (("clean", clean), ("corrupted", corrupted)):
    print(f"{name:>9} scratchpad, steps 19 to 21:", *prompts.symbols(0)[88:94])

# %% [markdown]
"""
The two differ in what stands before the answer of step 20 (and of step 10). A position is named by its role and step,
whatever its token is: the place where they part is `output label 20`.

## Every layer and position

`patch` runs the corrupted prompts and puts the clean residual stream back, one layer and one position at a time.
"""

# %%
effect = patch(run.model, clean, corrupted, site="resid_pre", metric=metric)
for name, margin in (("clean", effect.source), ("corrupted", effect.base)):
    print(f"{name}: the right answer is ahead by {margin.mean():+.1f} logits")
views.effect(effect)

# %% [markdown]
"""
Corrupted prompts get the *other* answer by as wide a margin: the model follows the label, not the place. In the map
almost every cell is neutral. One column restores the answer, the output label of step 20, at every layer: before layer
0 it is the label's name that is put back, before layer 2 what was fetched by it. In words:
"""

# %%
for (layer, position), change in effect.top(4):
    print(f"before layer {layer}, {position}: {change:+.1f}")

# %% [markdown]
"""
The first three are the label at step 20, and the best of them makes up the whole difference. Was the sweep right? It
checks itself as it runs: patching everything gives the clean run, patching a run with itself changes nothing, and
random cells are computed again by one plain forward pass each.
"""

# %%
assert effect.checks is not None
agree = effect.checks.spot_difference < effect.checks.tolerance
print("random cells agree with the plain forward pass:", agree)
print(f"the best cell goes {effect.recovered.max():.2f} of the way from corrupted to clean")

# %% [markdown]
"""
Both lines say that the map can be trusted: exact cells, and one of them that explains all.

## By head

The same for the output of each head (`z`). The map has, for each head, the position that moves the answer most.
"""

# %%
heads = patch(run.model, clean, corrupted, site="z", metric=metric)
views.effect(heads)

# %% [markdown]
"""
Five heads matter, and none of them restores the answer alone: four in layer 1, numbers 4 to 7, which share the work,
and before them head 0 of layer 0. What does that one do?

## By path

The four heads find a bit by the label that stands *before* it, so something must have told the bit's position which
label that is. Now trade two labels of the *input*, and let nothing but the keys of the four heads, at the bits, see
what one head of layer 0 makes of the trade (by itself and through the MLP of its layer): path patching.
"""

# %%
traded = counterfactual.swap_labels(clean, 20, 10, role=Role.INPUT_LABEL)
readers = [Receiver("k", 1, head, at=Role.INPUT) for head in (4, 5, 6, 7)]
senders = [Sender("head", 0, head) for head in range(8)]
paths = path_patch(run.raw, clean, traded, senders, readers, metric, direct=False)
whole = (paths.source - paths.base).mean()
for sender, change in zip(paths.labels["sender"], paths.change.mean(dim=-1), strict=True):
    print(f"{sender} to the keys of L1H4 to L1H7: {abs(change / whole):.2f} of what the trade does")

# %% [markdown]
"""
One path carries it: head 0 of layer 0 brings the label's name to its bit, and the keys of layer 1 offer it there. The
other heads of layer 0 do nothing here.

## Knocking out

If that is so, output labels need not look at input labels at all: the name stands at the bit. Delete their attention
to the bits, and to the input labels, everywhere:
"""

# %%
unseen = {"bits": Role.INPUT, "input labels": Role.INPUT_LABEL}
cuts = {name: Knockout(role, Role.OUTPUT_LABEL, mode="null") for name, role in unseen.items()}
lost = knock_out(run.raw, clean, cuts, metric)
for seen, change in zip(unseen, lost.change.mean(dim=-1), strict=True):
    print(f"output labels cannot see {seen}: {abs(change / lost.base.mean()):.2f} of the margin is lost")

# %% [markdown]
"""
Without the bits the whole margin goes, without the input labels nothing does. So this model uses a label as an
**address**: written on its bit by one head, matched by four. Whether that is *all* that labels do here is the question
of `hypotheses.ipynb`; how it looks in attention and in gradients, of `attention_and_maps.ipynb`.
"""
