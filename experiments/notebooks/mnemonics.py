# %% [markdown]
"""
# How a model uses mnemonics: patching and attention

A small transformer computes parity with a scratchpad. A **label**, a token drawn at random, precedes every bit of the
prompt. The scratchpad repeats the labels before its running parities:

`>>> M17 0 M4 1 ... === M17 0 M4 1 ...`

Ebrahimi, Panchal and Memisevic (COLM 2024) call these labels mnemonics, and find that models with them generalise past
the trained length. This notebook follows one label through a model: by attention, by activation patching, by path
patching and by knockouts.
"""

# %%
from experiments import load
from interp import (
    Knockout,
    Receiver,
    Role,
    Sender,
    capture,
    gradient_x_input,
    knock_out,
    logit_diff,
    patch,
    path_patch,
    views,
)
from interp.forward import correct
from interp.tasks import counterfactual

LIVE = False  # True: interactive views instead of pictures
views.show_live(LIVE)

run, plain = load("parity-aligned-alibi"), load("parity-scratchpad-alibi")
for model in (run, plain):
    print(model.sample(batch_size=1, length=4, seed=0).text(0))
    for length in (20, 40):
        batch = model.sample(batch_size=128, length=length, seed=0)
        right = correct(model.raw, batch, batch.predicted()).float().mean()
        print(f"  step accuracy at {length} bits: {right:.2f}")

# %% [markdown]
"""
Both models were trained to 20 bits. Step accuracy is teacher-forced: earlier steps are given. At twice the trained
length only the model with labels is still right.

## Attention

`capture` records attention patterns. `views.attention` shows them with the names of the tokens. Here: layer 1, on a
prompt of eight bits.
"""

# %%
short = run.sample(batch_size=1, length=8, seed=0)
attended = capture(run, short, pattern=[1])
views.attention(attended, layer=1)

# %% [markdown]
"""
Rows are queries, columns are keys. In heads 4 to 7 the rows of the scratchpad's labels have their weight on a diagonal
in the input. One row of head 4 as text, the label of step 5:
"""

# %%
dest = int(short.at(Role.OUTPUT_LABEL, 5)[0])
views.tokens(attended.pattern[1][:, 4], short, prompt=0, dest=dest)

# %% [markdown]
"""
Nearly all of the weight is on bit 5, the token after the same label in the input. Attention shows where a head reads.
Whether the answer depends on it needs an intervention.

## Clean and corrupted prompts

In the corrupted prompts the scratchpad's labels of steps 10 and 20 are swapped. Bits and answers stay. If the model
reads the bit after the matching label, step 20 now reads bit 10. Only prompts in which the two bits differ are kept.
"""

# %%
batch = run.sample(batch_size=64, length=25, seed=0)
bits = batch.tokens[:, batch.at(Role.INPUT)]
clean = batch.rows((bits[:, 9] != bits[:, 19]).nonzero().flatten())
corrupted = counterfactual.swap_labels(clean, 20, 10, role=Role.OUTPUT_LABEL)
metric = logit_diff(clean, step=20)

for name, side in (("clean", clean), ("corrupted", corrupted)):
    print(f"{name:>9} scratchpad, steps 19 to 21:", *side.symbols(0)[88:94])

# %% [markdown]
"""
The metric is the logit of the right answer at step 20 minus the logit of the other one.

## Patch the residual stream

`patch` runs the corrupted prompts and puts the clean residual stream back, one layer and one position at a time.
"""

# %%
effect = patch(run, clean, corrupted, site="resid_pre", metric=metric)
for name, margin in (("clean", effect.source), ("corrupted", effect.base)):
    print(f"logit difference, {name} run: {margin.mean():+.1f}")
for (layer, position), change in effect.top(4):
    print(f"before layer {layer}, {position}: {change:+.1f}")
views.effect(effect)

# %% [markdown]
"""
On corrupted prompts the model gives the other answer by as large a margin: it follows the label. One column restores
the answer, the scratchpad's label of step 20, at every layer.

Every sweep checks itself: patching a run with itself changes nothing, patching everything gives the clean run, and
random cells are computed again by one plain forward pass each.
"""

# %%
assert effect.checks is not None
equal = effect.checks.spot_difference < effect.checks.tolerance
print("random cells equal the plain forward pass:", equal)
print(f"largest share of the difference that one cell restores: {effect.recovered.max():.2f}")

# %% [markdown]
"""
## Patch heads

The same for the output of each head (`z`). The map shows, for each head, the position with the largest effect.
"""

# %%
heads = patch(run, clean, corrupted, site="z", metric=metric)
views.effect(heads)

# %% [markdown]
"""
Five heads have an effect, and none of them restores the answer alone: heads 4 to 7 of layer 1, and head 0 of layer 0.

## Path patching

Heads 4 to 7 read a bit by the label *before* it. So the label's identity must reach the position of the bit. Swap two
labels of the *input*, and let only the keys of the four heads, at the bits, receive what one head of layer 0 writes
(directly and through the MLP of its layer):
"""

# %%
swapped = counterfactual.swap_labels(clean, 20, 10, role=Role.INPUT_LABEL)
receivers = [Receiver("k", 1, head, at=Role.INPUT) for head in (4, 5, 6, 7)]
senders = [Sender("head", 0, head) for head in range(8)]
paths = path_patch(run, clean, swapped, senders, receivers, metric, direct=False)
total = (paths.source - paths.base).mean()
for sender, change in zip(paths.labels["sender"], paths.change.mean(dim=-1), strict=True):
    print(f"{sender} to the keys of L1H4 to L1H7: {abs(change / total):.2f} of the effect of the swap")

# %% [markdown]
"""
One path carries it: head 0 of layer 0 moves the label's identity to its bit, and the keys of layer 1 match it there.

## Knockouts

If so, labels of the scratchpad need not attend to labels of the input, only to bits. Remove either attention in all
heads:
"""

# %%
keys = {"bits": Role.INPUT, "input labels": Role.INPUT_LABEL}
cuts = {name: Knockout(role, Role.OUTPUT_LABEL, mode="null") for name, role in keys.items()}
lost = knock_out(run, clean, cuts, metric)
for name, change in zip(keys, lost.change.mean(dim=-1), strict=True):
    print(f"scratchpad labels without attention to {name}: {abs(change / lost.base.mean()):.2f} of the margin is lost")

# %% [markdown]
"""
Without the bits the whole margin is lost, without the input labels none of it. On these prompts the label is an
**address**: one head writes it onto its bit, four heads match it.

## Past the trained length

The same four heads at 40 bits. Prompts of this length get our own viewer, by the same call.
"""

# %%
far = capture(run, run.sample(batch_size=1, length=40, seed=0), pattern=[1])
views.attention(far, layer=1, heads=[4, 5, 6, 7])

# %% [markdown]
"""
The diagonal continues to the last step.

## Gradient x input

The paper's Figure 5 shows gradient x input: columns are answers, rows are tokens before them. The tokens that answer
*i* should depend on, bit *i* and the parity before it, are outlined. First the model with labels, then the one without:
"""

# %%
views.attribution(gradient_x_input(run, run.sample(batch_size=64, length=20, seed=0)))

# %% [markdown]
"""
Two diagonals lie on the outlines. A third, below the parities, is the label before each answer, where the answer is
predicted. Input labels are pale, although patching shows that they carry the address: attention that is saturated has
almost no gradient. So a map alone decides nothing.
"""

# %%
views.attribution(gradient_x_input(plain, plain.sample(batch_size=64, length=20, seed=0)))

# %% [markdown]
"""
Without labels, bits in a band several steps wide have an effect. Mind the scale of the colours.

Whether addressing is *all* that labels do in this model is the question of `hypotheses.ipynb`.
"""
