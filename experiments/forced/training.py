"""Train a model with barred attention on parity of one length."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import PreTrainedModel

from experiments.forced.models import CASES, LENGTH, Case, blank, path_of, vocabulary, write_case
from experiments.support.progress import progress_bar
from experiments.support.provenance import provenance_record
from interp.forward import correct
from interp.tasks import sample

STEPS, BATCH, LR, WARMUP = 5000, 128, 1e-3, 100
CHECK_EVERY, CHECK_PROMPTS, CHECK_SEED = 200, 256, 0
# Accuracy that starts the cool-down, and its steps.
COMPETENT, COOLDOWN = 0.999, 400


def train(case: Case, seed: int) -> tuple[PreTrainedModel, dict]:
    """Return a trained model, and what was reached. The loss is that of the answers; labels are given.

    What the case forces is written into the weights after every step, so the model is never without it.
    """
    raw = blank(seed)
    write_case(raw, case)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.1)
    check = sample(case.fmt, CHECK_PROMPTS, LENGTH, CHECK_SEED, vocabulary())
    at, accuracy, cooldown_from, step = check.predicted(forced=True), 0.0, STEPS - COOLDOWN, 0
    with progress_bar(total=STEPS, desc=f"{case.name}, seed {seed}", unit="step") as bar:
        while step < cooldown_from + COOLDOWN:
            left = min(1.0, max(0.02, 1 - (step - cooldown_from) / COOLDOWN))
            for group in optimizer.param_groups:
                group["lr"] = LR * min(1.0, (step + 1) / WARMUP) * left
            data = int(np.random.default_rng([seed, step]).integers(2**32))
            batch = sample(case.fmt, BATCH, LENGTH, data, vocabulary())
            logits = raw(batch.tokens, use_cache=False, logits_to_keep=at - 1).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch.tokens[:, at].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            write_case(raw, case)
            step += 1
            bar.update()
            if step % CHECK_EVERY == 0:
                accuracy = float(correct(raw.eval(), check, at).float().mean())
                raw.train()
                bar.set_postfix({"loss": f"{loss.item():.4f}", "accuracy": f"{accuracy:.3f}"})
                if accuracy >= COMPETENT:
                    cooldown_from = min(step, cooldown_from)
    return raw.eval(), {"steps": step, "step accuracy": accuracy, "loss": loss.item()}


def store(raw: PreTrainedModel, path: Path, record: dict) -> None:
    """Write the weights in bfloat16, with a record of the training; embedding and unembedding are one tensor."""
    weights = {name: w.bfloat16() for name, w in raw.state_dict().items() if name != "lm_head.weight"}
    save_file({name: w.contiguous() for name, w in weights.items()}, path, {"training": json.dumps(record)})
    path.chmod(0o644)


def train_and_store(name: str, seed: int) -> dict:
    """Train a case by its name, store its weights, and return what was reached."""
    if name not in CASES:
        raise ValueError(f"unknown case {name!r}; cases are {', '.join(CASES)}")
    raw, reached = train(CASES[name], seed)
    if not math.isfinite(reached["loss"]):
        raise ValueError(f"training {name}, seed {seed}, diverged")
    made = provenance_record(command=f"python -m experiments.forced train '{name}' {seed}")
    store(raw, path_of(name, seed), {**reached, "provenance": made})
    return reached
