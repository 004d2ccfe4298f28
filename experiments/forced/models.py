"""The models with barred attention: what is barred, what follows for the labels, and how their weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from experiments.forced.masks import Bar, Head, write_bars, write_noise
from experiments.forced.tied import tie_labels
from interp.models import Run, run_in_memory
from interp.tasks import Role, Vocabulary, sample

FORMAT, CONSTANT = "parity-aligned", "parity-constant"
# Bits: bars are written by position, so a model takes one length.
LENGTH = 8
SEEDS = (1, 2)
N_LAYERS, N_HEADS, D_MODEL, D_MLP = 2, 4, 64, 128
N_LABELS, N_HELD_OUT = 32, 16
FOLDER = Path(__file__).parent.parent / "results"
# The head of the last layer that writes noise in the two cases of a sink.
NOISY: Head = (N_LAYERS - 1, N_HEADS - 1)
EVERY: tuple[Head, ...] = tuple((layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS))
OTHERS = tuple(head for head in EVERY if head != NOISY)


@dataclass(frozen=True)
class Case:
    """A mechanism that is forced. `fmt` is the format of training; with `CONSTANT` all labels are tied afterwards.

    `roles` are what weights force: True, False, or None where training decides. `right` are the labels of a verdict
    that agree with them. `noisy`: a head writes noise (`write_noise`).
    """

    name: str
    fmt: str
    bars: Callable[[], tuple[Bar, ...]]
    roles: dict[str, bool | None]
    right: tuple[str, ...]
    why: str
    noisy: bool = False


def vocabulary() -> Vocabulary:
    """Return the symbols of parity, 32 labels and 16 that are held out."""
    labels = [f"M{i}" for i in range(1, N_LABELS + N_HELD_OUT + 1)]
    symbols = [">>>", "===", "#", "0", "1", *labels]
    return Vocabulary(dict(zip(symbols, range(len(symbols)), strict=True)), *_split(labels))


def _split(labels: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(labels[:N_LABELS]), tuple(labels[N_LABELS:])


@cache
def positions(*roles: Role) -> tuple[int, ...]:
    """Return the positions of some roles in a prompt."""
    role = sample(FORMAT, 1, LENGTH, 0, vocabulary()).role
    return tuple(torch.isin(role, torch.tensor(roles)).nonzero().flatten().tolist())


LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
N_POS = len(sample(FORMAT, 1, LENGTH, 0, vocabulary()).role)
ALL = tuple(range(N_POS))


def _barred() -> tuple[Bar, ...]:
    return (Bar(ALL, positions(*LABELS), EVERY),)


def _stored() -> tuple[Bar, ...]:
    """Return the bar of a stored state: the first output label may still read the last bit."""
    first = positions(Role.OUTPUT_LABEL)[0]
    return (Bar(tuple(p for p in ALL if p > first), positions(Role.INPUT, Role.SEPARATOR), EVERY),)


def _quiet(null: bool) -> tuple[Bar, ...]:
    """Return the bars of the two sinks; with `null` the noisy head can attend to the first token too."""
    bits, answering = positions(Role.INPUT), positions(Role.OUTPUT_LABEL)
    last = bits[-1]
    allowed = {*positions(Role.INPUT_LABEL), last, *(positions(Role.START) if null else ())}
    return (
        Bar(positions(Role.INPUT_LABEL), bits, OTHERS),
        Bar(ALL, positions(*LABELS), OTHERS),
        Bar(tuple(p for p in ALL if p != answering[-1]), (last,), OTHERS),
        Bar(answering, tuple(p for p in ALL if p not in allowed), (NOISY,)),
    )


CASES = {
    case.name: case
    for case in (
        Case(
            "barred",
            FORMAT,
            _barred,
            {"anchor": False, "placeholder": False, "sink": False},
            ("unused",),
            "no position attends to a label",
        ),
        Case(
            "only path",
            CONSTANT,
            _stored,
            {"anchor": False, "placeholder": True, "sink": None},
            ("placeholder", "mixed(placeholder, sink)"),
            "from the second output label on, bits are read from labels only; labels have one embedding",
        ),
        Case(
            "resting place",
            CONSTANT,
            lambda: _quiet(null=False),
            {"anchor": False, "placeholder": False, "sink": True},
            ("sink",),
            "labels have one embedding, read no bit and have value 0; a head copies noise unless it attends to them",
            noisy=True,
        ),
        Case(
            "resting place, null key",
            CONSTANT,
            lambda: _quiet(null=True),
            {"anchor": False, "placeholder": False, "sink": None},
            ("sink", "unused"),
            "as before, but the head can attend to the first token, whose value is 0 too",
            noisy=True,
        ),
    )
}


def blank(seed: int) -> PreTrainedModel:
    """Return a randomly initialised GPT-2 for prompts of `LENGTH` bits. The global random state is not changed."""
    common: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "attn_implementation": "eager"}
    size = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_inner": D_MLP, "n_positions": N_POS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=len(vocabulary().ids),
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=None,
            **size,
            **common,
        )
        return GPT2LMHeadModel(config)


def write_case(raw: PreTrainedModel, case: Case) -> None:
    """Write into the weights what the case forces."""
    bars = case.bars()
    write_bars(raw, bars)
    if case.noisy:
        write_noise(raw, NOISY, vocabulary().tokens(("0", "1")).tolist(), len(bars))


def path_of(name: str, seed: int) -> Path:
    """Return the file of a model's weights."""
    return FOLDER / f"forced-{name.replace(', ', '-').replace(' ', '-')}-seed{seed}.safetensors"


def load_forced(name: str, seed: int) -> Run:
    """Return a trained model with barred attention on parity-aligned, by the name of its case.

    Raises `ValueError` for an unknown case and where the weights are not stored.
    """
    if name not in CASES:
        raise ValueError(f"unknown case {name!r}; cases are {', '.join(CASES)}")
    path = path_of(name, seed)
    if not path.is_file():
        raise ValueError(f"{path.name} is not stored; train it: python -m experiments.forced train {name!r} {seed}")
    raw = blank(seed)
    raw.load_state_dict({key: weight.float() for key, weight in load_file(path).items()}, strict=False)
    raw.tie_weights()
    return posed(raw, CASES[name], seed)


def posed(raw: PreTrainedModel, case: Case, seed: int) -> Run:
    """Return a run on parity-aligned around a trained model; labels are tied where it was trained on one label."""
    run = run_in_memory(f"forced: {case.name}, seed {seed}", raw, case.fmt, vocabulary())
    return tie_labels(run, FORMAT) if case.fmt == CONSTANT else run
