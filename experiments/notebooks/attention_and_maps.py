# %% [markdown]
"""
# Where does it look, and what does an answer depend on? Attention and maps

Two trained models do the same parity problems. One writes a plain scratchpad; the other has a **label** before every
bit and before every step of the scratchpad, the same one on both sides. The first fails past the lengths that it was
trained on (20 bits), the second does not. This notebook looks at both.

Pictures describe. What a head or a token is *for* is a question for interventions: see `patching.ipynb`.
"""

# %%
from experiments import load
from interp import views
from interp.attribution import gradient_x_input
from interp.capturing import capture
from interp.circuits import describe_heads
from interp.forward import correct
from interp.tasks import Role

LIVE = False  # True: views to point at and to click, in place of pictures
views.show_live(LIVE)

labelled, plain = load("parity-aligned-alibi"), load("parity-scratchpad-alibi")
for run in (plain, labelled):
    print(run.sample(batch_size=1, length=4, seed=0).text(0))

# %% [markdown]
"""
`>>>` opens the bits and `===` the scratchpad, whose last bit is the parity of all. The second line has labels.
How often is a step right, given right steps before it?
"""

# %%
for run in (plain, labelled):
    for length in (20, 40):
        batch = run.sample(batch_size=128, length=length, seed=0)
        right = correct(run.raw, batch, batch.predicted()).float().mean()
        print(f"{run.name}, {length} bits: {right:.2f}")

# %% [markdown]
"""
At a trained length both are right, or nearly always; at twice the length only the model with labels is.

## Attention, head by head

`capture` runs the model and keeps attention patterns, `views.attention` shows them with the tokens' own names, coloured
by role. For short prompts it is circuitsvis, whose heads can be clicked in a live view.
"""

# %%
short = labelled.sample(batch_size=1, length=8, seed=0)
seen = capture(labelled.model, short, pattern=[1])
views.attention(seen, layer=1)

# %% [markdown]
"""
Rows are the tokens that look, columns those looked at. Heads 4 to 7 have isolated cells in the lower left quarter,
where scratchpad rows meet input columns, along a diagonal. Which cells are these? `views.tokens` shows one row: where
output label 5 looks in head 4.
"""

# %%
dest = int(short.at(Role.OUTPUT_LABEL, 5)[0])
views.tokens(seen.pattern[1][:, 4], short, prompt=0, dest=dest)

# %% [markdown]
"""
Nearly all of its attention is on one token: bit 5, the one after the same label in the input.

## Every head, measured

A look at one prompt may mislead. `describe_heads` measures on many where each head looks, and names a head only where
its attention is far above chance.
"""

# %%
batch = labelled.sample(batch_size=32, length=20, seed=0)
heads = describe_heads(labelled.raw, batch)
masses = {"after_matching_label": "on the bit after the matching label", "labels": "on labels"}
rows = []
for (layer, head), name in heads.names().items():
    found = {words: heads.value(layer, head, Role.OUTPUT_LABEL, m) for m, words in masses.items()}
    rows.append({"head": f"L{layer}H{head}", "named": name, **found})
views.head_table(rows, title="Where each head looks from output labels")

# %% [markdown]
"""
The same four heads of layer 1 stand at the top, then there is a gap: one more head does some of it, the others none.
The four look at the *bit* after the matching label, hardly at labels themselves.

## Past the trained length

The four heads at 40 bits, twice what training saw. Prompts this long get a viewer of our own by the same call.
"""

# %%
long = labelled.sample(batch_size=1, length=40, seed=0)
far = capture(labelled.model, long, pattern=[1])
views.attention(far, layer=1, heads=[4, 5, 6, 7])

# %% [markdown]
"""
The diagonal is still there, to the last step: a label is found by its name, however far away it stands.

## What does each answer depend on?

Gradient x input asks how each token's embedding moves the answer's margin (the logit of the right bit, less that of
the other). Columns are answers, rows what they depend on; where answer *i* should come from, bit *i* and the parity
before it, is outlined. First the model with labels:
"""

# %%
batch = labelled.sample(batch_size=64, length=20, seed=0)
views.attribution(gradient_x_input(labelled.raw, batch))

# %% [markdown]
"""
Two thin diagonals lie on the outlines. A third, below the parities, is the label right before the answer: the answer is
read out there. Everything else is pale, the input's labels too. Now the model without labels:
"""

# %%
batch = plain.sample(batch_size=64, length=20, seed=0)
views.attribution(gradient_x_input(plain.raw, batch))

# %% [markdown]
"""
Here bits speak in a band several steps wide, for the answer and against it, and late answers far more than early ones
(mind the scale). There is no name by which one bit could be picked out of its neighbours. This is the difference that
the paper's maps show (Ebrahimi, Panchal and Memisevic, COLM 2024).

The maps have a blind spot. Input labels are pale in the first one, and yet the patching notebook shows that they
carry the addresses: sharp attention is saturated, and has next to no gradient. So a map is where questions come from;
`hypotheses.ipynb` is about answers.
"""
