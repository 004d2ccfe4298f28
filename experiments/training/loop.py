"""How is a recipe turned into a run?"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.provenance import provenance_record
from experiments.training.checkpoint import load_checkpoint, save_checkpoint
from experiments.training.recipe import Part, Pretrained, Recipe, parts
from interp.forward import correct
from interp.models import build_model, load_run, load_tokenizer, read_json, save_run
from interp.models.folder import read_record
from interp.tasks import Batch, Vocabulary, house_tokenizer, house_vocabulary, parse_format, sample
from interp.tasks.formats import RECALL_START
from interp.writing import alone_in, naming, write_whole
from probes.competence import modes_of, steps_right
from probes.findings import MARGINS

CHECK_EVERY = 100
CHECK_PROMPTS = 64
CHECK_SEED = 0
SAVE_EVERY_SECONDS = 60
# A checkpoint of a large model takes a while: saving gets at most a twentieth of the time.
SAVE_SHARE = 20
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Trained:
    """What came out: where, whether it learned, and its step accuracy at the longest trained length."""

    folder: Path
    competent: bool
    step_accuracy: float
    steps: int


def train_run(recipe: Recipe, out: Path, precision: str = "no", save_every: float = SAVE_EVERY_SECONDS) -> Trained:
    """Trains a recipe into `out/<recipe.name>`, going on where an earlier, killed call stopped.

    On a CPU with the same number of threads the weights are bit-identical, interrupted or not. A run of this recipe
    that is there already is what comes out. Raises `ValueError` when the folder holds another run, or a half-trained
    run of another recipe, and when another process is training it.
    """
    final, work = out / recipe.name, out / f"{recipe.name}.training"
    if final.exists():
        return _finished(final, work, recipe, precision)
    with ExitStack() as until_done:
        return _train(recipe, final, work, precision, save_every, until_done)


def _train(
    recipe: Recipe, final: Path, work: Path, precision: str, save_every: float, until_done: ExitStack
) -> Trained:  # fmt: skip
    accelerator = Accelerator(mixed_precision=precision)
    model, tokenizer, vocabulary = beginning(recipe)
    checks = _check_batches(recipe, vocabulary)
    parts_of = partial(parts, recipe, process=accelerator.process_index, vocabulary=vocabulary)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    if accelerator.is_main_process:
        until_done.enter_context(alone_in(work))  # only now: a recipe that cannot be built leaves nothing behind
        if final.exists():
            raise ValueError(f"{final} has just been trained by another process")
        _claim(work, recipe, precision, accelerator.num_processes)
    accelerator.wait_for_everyone()
    state = load_checkpoint(work, model, optimizer) or {"step": 0, "accuracy": {}}
    state.setdefault("cooldown_from", max(0, recipe.steps - recipe.cooldown))
    state.setdefault("seconds", 0.0)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    metrics = work / METRICS
    if accelerator.is_main_process:
        _forget_after(metrics, state["step"])
    sums: dict[str, list[float]] = {}
    began = saved = time.monotonic()
    before, saving = state["seconds"], 0.0
    bar = tqdm(
        total=recipe.steps, initial=state["step"], desc=recipe.name, unit="step", file=sys.stderr,
        disable=None if accelerator.is_main_process else True,
    )  # fmt: skip
    step = state["step"]
    while step < min(recipe.steps, state["cooldown_from"] + recipe.cooldown):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _schedule(recipe, state["cooldown_from"], step)
        losses = _gradients(accelerator, wrapped, recipe, step, parts_of(step))
        accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        bar.update()
        for name, loss in losses.items():
            sums.setdefault(name, []).append(loss)
        state["seconds"] = before + time.monotonic() - began
        if step % CHECK_EVERY == 0 or step == recipe.steps:
            # Decided by one process for all: two that round differently would stop at different steps.
            (state["accuracy"],) = broadcast_object_list([_accuracies(accelerator.unwrap_model(wrapped), checks)])
            grown = step >= max(recipe.ramp, recipe.rehearsal_ramp if recipe.rehearsal else 0)
            good = all(a >= recipe.competent for a in state["accuracy"].values())
            if grown and good:  # only ever earlier: a cool-down that has begun goes on
                state["cooldown_from"] = min(step, state["cooldown_from"])
            means = {f"loss_{k}": sum(v) / len(v) for k, v in sums.items()}
            line = {"step": step, "lr": optimizer.param_groups[0]["lr"], **means}
            line |= {f"accuracy_{k}": a for k, a in state["accuracy"].items()}
            line["seconds"] = round(state["seconds"], 1)
            sums.clear()
            bar.set_postfix({k.split("_", 1)[1]: f"{v:.3f}" for k, v in line.items() if k.startswith("acc")})
            if accelerator.is_main_process:
                with naming(metrics), metrics.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    os.fsync(file.fileno())  # a checkpoint must not outlive the lines before it
            # Saved at a check only: the running loss means are empty there, so metrics resume exactly too.
            if accelerator.is_main_process and time.monotonic() - saved >= max(save_every, SAVE_SHARE * saving):
                began_saving = time.monotonic()
                raw_optimizer: Any = getattr(optimizer, "optimizer", optimizer)
                kept = {k: v for k, v in state.items() if k != "step"}
                save_checkpoint(work, step, accelerator.unwrap_model(wrapped), raw_optimizer, kept)
                saved = time.monotonic()
                saving = saved - began_saving
    bar.close()
    outcome = _outcome(accelerator.unwrap_model(wrapped), checks["task"], state["accuracy"], step)
    if accelerator.is_main_process:
        record = {
            "format": str(parse_format(recipe.format)),
            "vocabulary": vocabulary.to_json(),
            "recipe": recipe.to_json(),
            "outcome": outcome,
            "precision": precision,
            "processes": accelerator.num_processes,
            "training_seconds": round(state["seconds"], 1),
            "provenance": provenance_record(device=str(accelerator.device)),
        }
        trained = accelerator.unwrap_model(wrapped).cpu().float().eval()
        save_run(final, trained, tokenizer, record, {METRICS: metrics.read_bytes()})
        shutil.rmtree(work)
    accelerator.wait_for_everyone()
    return Trained(final, outcome["competent"], outcome["step_accuracy"], step)


def _finished(final: Path, work: Path, recipe: Recipe, precision: str) -> Trained:
    """What an earlier call has trained; it may have been killed before it had cleared up."""
    record = read_record(final) or {}
    there = {**record.get("recipe", {}), "precision": record.get("precision")}
    if there != {**json.loads(json.dumps(recipe.to_json())), "precision": precision}:
        raise ValueError(f"{final} is there already, of another recipe; remove it, or choose another --out")
    shutil.rmtree(work, ignore_errors=True)
    outcome = record["outcome"]
    return Trained(final, outcome["competent"], outcome["step_accuracy"], outcome["steps"])


def beginning(recipe: Recipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Vocabulary]:
    """The model before the first step, its tokenizer, and which tokens stand for the symbols of the task.

    Raises `ValueError` for a pretrained model whose tokens or positions do not take the recipe's lengths.
    """
    if not isinstance(recipe.model, Pretrained):
        vocabulary = house_vocabulary()
        return build_model(recipe.model, len(vocabulary.ids), recipe.seed), house_tokenizer(), vocabulary
    run = load_run(recipe.model.source, recipe.format)
    if recipe.rehearsal and RECALL_START not in run.vocabulary.ids:
        raise ValueError(f"rehearsal takes symbols that {run.name} has no tokens for; leave it at 0")
    run.check_length(recipe.longest)
    model = run.raw.float().train()
    model.requires_grad_(True)
    return model, load_tokenizer(recipe.model.source), run.vocabulary


def _outcome(model: Any, check: Batch, accuracy: dict[str, float], steps: int) -> dict:
    """What was learned. `accuracy` counts predicted tokens, labels among them; a step needs all of its tokens."""
    model.eval()
    step_accuracy = float(steps_right(model, check, modes_of(check)[-1]).float().mean())
    competent = step_accuracy >= MARGINS.competence
    return {"competent": competent, "step_accuracy": step_accuracy, "steps": steps, "token_accuracy": accuracy}


def _claim(work: Path, recipe: Recipe, precision: str, processes: int = 1) -> None:
    """Makes the working folder, or checks that the one there is of the same recipe."""
    means = {"threads": torch.get_num_threads(), "precision": precision}
    if processes > 1:  # each has its own data
        means["processes"] = processes
    wanted = json.dumps({**recipe.to_json(), **means}, indent=1) + "\n"
    path = work / "recipe.json"
    if not path.exists():
        write_whole(path, wanted)
        return
    there, ours = read_json(path), json.loads(wanted)
    if not isinstance(there, dict):
        raise ValueError(f"{path} is no recipe; remove {work} or choose another --out")
    if there != ours:
        names = [k for k in {**there, **ours} if there.get(k) != ours.get(k)]
        differ = [f"{k} {there.get(k)} there, {ours.get(k)} now" for k in names]
        raise ValueError(f"{work} is of another recipe ({'; '.join(differ)}); remove it or choose another --out")
    for stale in work.glob(".step-*"):  # written by a process that was killed
        shutil.rmtree(stale)


def _forget_after(metrics: Path, step: int) -> None:
    """Drops the lines that a killed process wrote after its last checkpoint."""
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    try:
        kept = [line for line in whole if json.loads(line)["step"] <= step]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{metrics} has a line that is no record of training: {error!r}") from error
    write_whole(metrics, "".join(kept))


def _schedule(recipe: Recipe, cooldown_from: int, step: int) -> float:
    """Learning rate at a step, as a share of the highest: up, level, then down to `final_lr`, and never up again."""
    left = 1 - (1 - recipe.final_lr) * (step - cooldown_from) / max(1, recipe.cooldown)
    return min(1.0, (step + 1) / max(1, recipe.warmup)) * min(1.0, max(recipe.final_lr, left))


def _gradients(
    accelerator: Accelerator, model: Any, recipe: Recipe, step: int, found: list[Part]
) -> dict[str, float]:  # fmt: skip
    """Accumulates the gradients of one step's parts; the loss of each part, in nats a predicted token."""
    losses = {}
    for k, part in enumerate(found):
        last = k == len(found) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = _loss(model, part, recipe, step, accelerator.device)
            accelerator.backward(loss * part.weight)
        losses[part.name] = loss.item()
    return losses


def _predicted(batch: Batch) -> Tensor:
    return batch.predicted(forced=not batch.format.model_can_write_labels)


def _loss(model: Any, part: Part, recipe: Recipe, step: int, device: torch.device) -> Tensor:
    batch = part.batch
    at = _predicted(batch)
    extra = {}
    if recipe.positions != "plain":
        extra["position_ids"] = position_ids(recipe, batch, step).to(device)
    tokens = batch.tokens.to(device)
    logits = model(tokens, use_cache=False, logits_to_keep=(at - 1).to(device), **extra).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, at.to(device)].flatten())


def position_ids(recipe: Recipe, batch: Batch, step: int) -> Tensor:
    """Position augmentation, `[batch pos]`: no distance or position at test is new.

    "start": each prompt begins at a random position. "jump": positions leap ahead after the first token
    that the model writes (the first label has to be found at a learned distance from the separator), by up
    to what the model's positions leave, a limit that grows over `position_ramp` steps.
    """
    gen = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    assert not isinstance(recipe.model, Pretrained), "positions are moved in models of our own alone"
    room = recipe.model.n_ctx - batch.n_pos
    if recipe.positions == "jump":
        room = int(room * min(1.0, step / max(1, recipe.position_ramp)))
    leap = torch.randint(max(0, room) + 1, (len(batch), 1), generator=gen)
    ids = torch.arange(batch.n_pos).expand(len(batch), -1)
    if recipe.positions == "start":
        return ids + leap
    return ids + leap * (torch.arange(batch.n_pos) > _predicted(batch)[0])


def _check_batches(recipe: Recipe, vocabulary: Vocabulary) -> dict[str, Batch]:
    """The prompts that say when to cool down: the longest that it trains on."""
    checks = {"task": sample(recipe.format, CHECK_PROMPTS, recipe.longest, CHECK_SEED, vocabulary)}
    if recipe.rehearsal:
        longest = recipe.rehearsal_longest
        checks["rehearsal"] = sample("recall-shuffled", CHECK_PROMPTS, longest, CHECK_SEED, vocabulary)
        checks["rehearsal_ordered"] = sample("recall-ordered", CHECK_PROMPTS, longest, CHECK_SEED, vocabulary)
    return checks


def _accuracies(model: Any, checks: dict[str, Batch]) -> dict[str, float]:
    model.eval()
    found = {name: float(correct(model, b, _predicted(b)).float().mean()) for name, b in checks.items()}
    model.train()
    return found


