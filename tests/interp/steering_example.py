"""Measure the README's steering example at several scales: `python -m tests.interp.steering_example [FILE]`.

Greedy continuations by the fetched SmolLM2-135M, and the perplexity of each under the unsteered model, in which the
prompt is not counted. A scale is right where the text has changed and its perplexity has hardly risen. Repetition has a
low perplexity, so the text must be read, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp import load, mean_difference, steered
from interp.support.writing import write_whole

FILE = Path("experiments/results/steering.json")
MODEL, TEXT = "smollm2-135m", "The food in that restaurant was"
PRAISE = ["I love this. It is wonderful", "What a beautiful, happy day", "This is the best gift"]
BLAME = ["I hate this. It is terrible", "What an ugly, sad day", "This is the worst gift"]
SCALES = (0.0, 1.0, 4.0)
NEW = 24


def measured() -> dict[str, Any]:
    """Return the text and its perplexity at each scale; scale 0 is the unsteered model."""
    run: Any = load(MODEL)
    layer = run.raw.config.num_hidden_layers // 2
    vector = mean_difference(run, BLAME, PRAISE, at=("resid_post", layer))
    ids = run.tokenizer(TEXT, return_tensors="pt").to(run.device)
    n, found = ids["input_ids"].shape[1], []
    for scale in SCALES:
        with steered(run, at=("resid_post", layer), add=vector, scale=scale):
            tokens = run.raw.generate(**ids, max_new_tokens=NEW, do_sample=False, pad_token_id=0)[0]
        text = run.tokenizer.decode(tokens[n:])
        found.append({"scale": scale, "text": text, "perplexity": perplexity(run.raw, tokens, n)})
    return {"model": MODEL, "layer": layer, "prompt": TEXT, "scales": found}


@torch.no_grad()
def perplexity(raw: Any, tokens: Tensor, first: int) -> float:
    """Return exp of the mean cross-entropy of the tokens from position `first` on."""
    log_probs = raw(tokens[None]).logits[0, first - 1 : -1].double().log_softmax(dim=-1)
    return float((-log_probs.gather(-1, tokens[first:, None])).mean().exp())


if __name__ == "__main__":
    torch.set_num_threads(1)
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    write_whole(file, json.dumps(measured(), indent=1) + "\n")
