# %% [markdown]
"""
# Activation patching on English text

When Mary and John went to the store, John gave a drink to ... **Mary**. The name that occurs once is the answer. This
is indirect object identification (Wang et al. 2022, arXiv 2211.00593). Which activations carry the information about
the repeated name?

Activation patching answers this with two prompts that differ in one word. The model runs on the corrupted prompt, one
activation is replaced by its value on the clean prompt, and the metric shows whether the answer changes.
"""

# %%
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interp import capture, load, logit_diff, patch, template, views
from interp.models.pretrained import fetched_folder

LIVE = False  # True: interactive views instead of pictures
views.show_live(LIVE)

TEXT = "When {first} and {second} went to the store, {giver} gave a drink to"
PAIRS = [("Mary", "John"), ("Tom", "Anna"), ("Paul", "Sarah"), ("Mark", "Lisa")]


def random_model():
    """Return a small model with random weights and a tokenizer of the words in the prompts."""
    words = [*TEXT.format(first="", second="", giver="").replace(",", " ,").split(), *(n for p in PAIRS for n in p)]
    vocabulary = {word: k for k, word in enumerate(dict.fromkeys(["?", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    return load(model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?"))


folder = fetched_folder("smollm2-135m")
run = load(folder) if folder else random_model()
print("model:", "SmolLM2-135M" if folder else "random weights; run `mnemoscope fetch smollm2-135m` for SmolLM2-135M")

# %% [markdown]
"""
The pictures and the text below are of SmolLM2-135M. With random weights the same code runs, and the maps show nothing
of interest.

## Prompts

`template` fills one sentence with several pairs of names. It records which tokens each placeholder covers, and refuses
rows whose tokens do not line up. In the corrupted prompts the *other* name is repeated, so the other answer is right.
"""

# %%
clean = template(TEXT, [{"first": a, "second": b, "giver": b} for a, b in PAIRS], run)
corrupted = template(TEXT, [{"first": a, "second": b, "giver": a} for a, b in PAIRS], run)
gap = "" if not folder else " "
metric = logit_diff(answer=[gap + a for a, _ in PAIRS], other=[gap + b for _, b in PAIRS])

print("clean:    ", clean.text(0))
print("corrupted:", corrupted.text(0))
print("positions:", {name: clean.spans[name] for name in ("first", "second", "giver")})

# %% [markdown]
"""
The metric is the logit of the clean answer minus the logit of the other name, after the last token.

## Residual stream

`patch` replaces the residual stream before a layer, one position at a time. Every fifth layer is enough to see the
pattern. The effect is averaged over the prompts.
"""

# %%
layers = range(0, run.raw.config.num_hidden_layers, 5)
effect = patch(run, clean, corrupted, site="resid_pre", metric=metric, layers=[*layers])
print(f"logit difference, clean run: {effect.source.mean():+.1f}; corrupted run: {effect.base.mean():+.1f}")
views.effect(effect)

# %% [markdown]
"""
Two columns have a large effect. In early and middle layers the information is at the repeated name (`giver`): patching
this one position there restores the whole difference. Before layer 25 it has moved to the last token, where the
answer is predicted. Other positions have almost none.

The same as numbers, the mean change of the logit difference:
"""

# %%
last = clean.n_pos - 1
for name, position in (("giver", clean.spans["giver"][0]), ("last token", last)):
    for k, layer in enumerate(layers):
        print(f"{name:>10}, before layer {layer:2}: {effect.change[k, position].mean():+.1f}")

# %% [markdown]
"""
## Heads

Which heads move the information? Patch the output of each head (`z`) at the last token, in the layers between those
two columns.
"""

# %%
n_layers = run.raw.config.num_hidden_layers
middle = [*range(n_layers * 2 // 3 - 1, n_layers * 5 // 6)]
heads = patch(run, clean, corrupted, site="z", metric=metric, layers=middle, positions=[last])
for (layer, head, _), change in heads.top(4):
    print(f"L{layer}H{head}: {change:+.1f} logits")
views.effect(heads)

# %% [markdown]
"""
Few heads have an effect, and the largest restores under half of the difference alone. One head acts against the
answer. What does the largest one attend to?
"""

# %%
cell, _ = heads.top(1)[0]
layer, head = int(cell[0]), int(cell[1])
patterns = capture(run, clean, pattern=[layer])
for row in range(len(clean)):
    weights = patterns.pattern[layer][row, head, last]
    read = int(weights.argmax())
    print(f"{clean.text(row)!r}: {weights[read]:.2f} on {clean.symbol(int(clean.tokens[row, read]))!r}")
views.attention(patterns, layer=layer, heads=[head])

# %% [markdown]
"""
In each prompt it attends most to the repeated name, which is *not* the answer: it carries which name to avoid, as the
S-inhibition heads of GPT-2 small do (Wang et al. 2022).

Attention describes, patching intervenes: the head's output carries a large part of the answer on these prompts. Four
prompts of one sentence are an example, not evidence about the model. For a claim, use more sentences and other
corruptions.

`mnemonics.ipynb` does the same on a task with labels in its context, `hypotheses.ipynb` tests what those labels do.
"""
