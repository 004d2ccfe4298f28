"""Which directions, taken from another run, make the model answer as if one variable had been another?

TransformerLens's interchange interventions and distributed alignment search (DAS; Geiger et al. 2303.02536) on the
part of a model that comes after the site. Only positions from the site to the answer are computed, on keys and values
of the run before: a search costs a small part of what full forward passes cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.models.anatomy import TOLERANCE, Anatomy, Block, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import Place, Site, forward_with_edits
from interp.support.finite import require_finite
from interp.tasks import Batch
from interp.tasks.layout import generator

Basis = Float[Tensor, "site rank"]
# Base prompts in one pass without gradients.
CHUNK = 128


@dataclass(frozen=True, eq=False)
class Pairs:
    """Base and source prompts, where they are joined, and what each base should then answer.

    Shapes:
        site:   `[pair place]` positions, in rising order, the same distance apart in every pair or not; what stands
                there, all places together, is the `[pair place*d_model]` that directions live in.
        answer: `[pair]` positions of the answers, after every place of the site.
        target: `[pair]` the answer that the variable's other value gives, a number of `symbols`.
        symbols: `[symbol]` token ids among which the answer is chosen.
    """

    base: Batch
    source: Batch
    site: Int[Tensor, "pair place"]
    answer: Int[Tensor, " pair"]
    target: Int[Tensor, " pair"]
    symbols: Int[Tensor, " symbol"]

    def __post_init__(self) -> None:
        n = len(self.base)
        if not len(self.source) == len(self.site) == len(self.answer) == len(self.target) == n or self.site.ndim != 2:
            raise ValueError("base, source, site, answer and target must have one entry for each pair")
        if self.base.n_pos != self.source.n_pos:
            raise ValueError(f"base has {self.base.n_pos} positions and source {self.source.n_pos}")
        if (self.site >= self.answer.unsqueeze(1)).any() or (self.site < 0).any():
            raise ValueError("every place of the site must stand before the answer")

    def __len__(self) -> int:
        return len(self.base)

    def rows(self, index: Tensor) -> Pairs:
        """Some of the pairs."""
        return Pairs(
            self.base.rows(index),
            self.source.rows(index),
            self.site[index],
            self.answer[index],
            self.target[index],
            self.symbols,
        )


@dataclass(frozen=True, eq=False)
class Joined:
    """A model's second half from the residual before `layer`, ready for interchange on the given pairs.

    Build one with `join`; it is used for as many bases as wanted.
    """

    tail: Any
    pairs: Pairs
    layer: int

    @property
    def source(self) -> Float[Tensor, "pair site"]:
        """What stands at the site in the source runs."""
        return self.tail.sources

    @property
    def size(self) -> int:
        """Numbers at the site: places times d_model."""
        return self.source.shape[1]


@torch.no_grad()
def join(model: PreTrainedModel, layer: int, pairs: Pairs) -> Joined:
    """Runs base and source prompts once, and keeps what interchange before `layer` needs.

    Raises `ValueError` for a layer that is not there, and `RuntimeError` where the second half by itself does not
    give the raw model's logits.
    """
    anatomy = anatomy_of(raw_of(model))
    if layer not in range(len(anatomy.blocks)):
        raise ValueError(f"sites stand before layers 0 to {len(anatomy.blocks) - 1}; got {layer}")
    sites: tuple[Site, ...] = ("k", "v")
    keep: list[Place] = [("resid_pre", layer), *((s, i) for i in range(layer, len(anatomy.blocks)) for s in sites)]
    got: dict[Place, list[Tensor]] = {place: [] for place in keep}
    sources, finals = [], []
    rows_of = torch.arange(len(pairs)).split(CHUNK)
    for rows in rows_of:
        final, kept = forward_with_edits(anatomy, anatomy.embed(pairs.base.tokens[rows].to(anatomy.device)), keep=keep)
        for place in keep:
            got[place].append(kept[place])
        at = (pairs.answer[rows] - 1).to(final.device)
        finals.append(anatomy.unembed(final[torch.arange(len(rows)), at])[:, pairs.symbols.to(final.device)])
        before = anatomy.embed(pairs.source.tokens[rows].to(anatomy.device))
        source, _ = forward_with_edits(anatomy, before, stop=layer)
        here = torch.arange(len(rows)).unsqueeze(1)
        sources.append(source[here, pairs.site[rows].to(source.device)].flatten(1))
    tail = _tail_class()(anatomy, layer, pairs, {p: torch.cat(parts) for p, parts in got.items()}, torch.cat(sources))
    found = torch.cat([tail(rows) for rows in rows_of])
    expected = require_finite(torch.cat(finals), "a logit of a base prompt", axis=0)
    require_finite(tail.sources, "the residual of a source prompt", axis=0)
    difference = float((found - expected).abs().max() / expected.std().clamp_min(1e-6))
    if not difference <= (TOLERANCE if anatomy.dtype in (torch.float32, torch.float64) else 0.1):
        raise RuntimeError(f"the half after layer {layer} differs from the whole by {difference:.1e} of its spread")
    return Joined(tail, pairs, layer)


def fit(
    joined: Joined,
    rank: int,
    seed: int = 0,
    targets: Int[Tensor, " pair"] | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-2,
) -> Basis:
    """Orthonormal directions, learned by TransformerLens's `fit_das`, whose interchange gives the pairs' targets.

    `targets` replaces them, for controls. Raises `ValueError` for a rank below 1 or above the site's size.
    """
    from transformer_lens.tools.analysis.interchange import fit_das

    _check_rank(joined, rank)
    n = len(joined.pairs)
    rows = torch.arange(n)
    wanted = joined.pairs.target if targets is None else targets
    with _frozen(joined.tail.anatomy.raw):
        found = fit_das(
            joined.tail,
            "site",
            rows,
            rows + n,
            wanted,
            joined.tail,
            rank=rank,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=joined.source.device,
        )
    return found.basis.cpu()


def random_directions(joined: Joined, rank: int, seed: int) -> Basis:
    """Random orthonormal directions at the site (TransformerLens's `random_basis`)."""
    from transformer_lens.tools.analysis.interchange import random_basis

    _check_rank(joined, rank)
    return random_basis(joined.size, rank, seed)


def arbitrary_targets(pairs: Pairs, seed: int) -> Int[Tensor, " pair"]:
    """A pseudo-random target for each source prompt: what can DAS fit by its expressivity alone?"""
    from transformer_lens.tools.analysis import interchange

    keys = [tuple(row) for row in torch.cat([pairs.source.tokens, pairs.site], dim=1).tolist()]
    return interchange.arbitrary_targets(keys, len(pairs.symbols), seed)


def swapped_answers(joined: Joined, basis: Basis | None, placebo: Basis | None = None) -> Float[Tensor, "pair symbol"]:
    """Logits of the symbols after the interchange inside `basis`; without one, those of the base prompts.

    With `placebo`, each base is moved as far as by `basis`, but inside the placebo's directions.
    """
    from transformer_lens.tools.analysis.interchange import NormMatchedPlacebo, SubspaceInterchange, intervened_logits

    size = joined.size
    move: Any = SubspaceInterchange(torch.zeros(size, 1) if basis is None else basis)
    if basis is not None and basis.shape[0] != size:
        raise ValueError(f"directions at this site have {size} numbers; got {tuple(basis.shape)}")
    if placebo is not None:
        move = NormMatchedPlacebo(move, placebo)
    rows = torch.arange(len(joined.pairs))
    found = intervened_logits(joined.tail, "site", move, rows, joined.source, joined.tail, batch_size=CHUNK)
    return require_finite(found, "a logit after the interchange", axis=0)


def everything(joined: Joined) -> Basis:
    """All directions of the site: its interchange takes the whole residual."""
    return torch.eye(joined.size)


def untrained(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the same class and configuration with fresh random weights; global random state is left alone.

    TransformerLens's `random_init_bridge` does this for models with a name; ours may be in memory only.
    """
    raw: Any = raw_of(model)
    generator(seed)  # refuses a seed that torch would cut short
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(raw)(raw.config)
    return fresh.to(device=raw.device, dtype=raw.dtype).eval()


def _check_rank(joined: Joined, rank: int) -> None:
    if not 1 <= rank <= joined.size:
        raise ValueError(f"a site of {joined.size} numbers has ranks 1 to {joined.size}; got {rank}")


@cache
def _tail_class() -> type:
    """TransformerLens's base class costs seconds to import, hence a class inside a function."""
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.HookedRootModule import HookedRootModule

    class Tail(HookedRootModule):
        """Logits of the symbols at each pair's answer, for numbers of pairs; n and above are the sources.

        The model's own modules are not registered: TransformerLens would write names on them.
        """

        def __init__(self, anatomy: Anatomy, layer: int, pairs: Pairs, kept: dict[Any, Tensor], sources: Tensor):
            super().__init__()
            self.site = HookPoint()
            self.anatomy, self.layer, self.pairs, self.kept, self.sources = anatomy, layer, pairs, kept, sources
            self.eval()
            self.setup()

        def forward(self, index: Tensor) -> Tensor:
            n = len(self.pairs)
            if (index >= n).all():  # TransformerLens wants what stands at the hook, and no logits
                return self.site(self.sources[(index - n).to(self.sources.device)])
            anatomy, device = self.anatomy, self.sources.device
            index = index.to(device)
            here = torch.arange(len(index), device=device).unsqueeze(1)
            places, read = (x.to(device)[index] for x in (self.pairs.site, self.pairs.answer - 1))
            resid = self.kept["resid_pre", self.layer][index]
            changed = self.site(resid[here, places].flatten(1)).unflatten(1, (places.shape[1], -1))
            start = places[:, :1]
            width = int((read - start[:, 0]).max()) + 1
            # A short window runs on past its answer, where nothing that is read can see it.
            window = (start + torch.arange(width, device=device)).clamp_max(resid.shape[1] - 1)
            resid = resid.index_put((here, places), changed)[here, window]
            read_at = (read - start[:, 0]).unsqueeze(1)
            for layer in range(self.layer, len(anatomy.blocks)):
                block = anatomy.blocks[layer]
                q, k, v = block.project(resid)
                k, v = (self.kept[s, layer][index].index_put((here, window), x) for s, x in (("k", k), ("v", v)))
                if layer == len(anatomy.blocks) - 1:  # of the last layer only the answer is read
                    q, resid, window = q[here, read_at], resid[here, read_at], read.unsqueeze(1)
                mid = resid + block.attn_out(self._attend(block, q, k, v, window))
                resid = mid + block.mlp_out(resid if block.parallel else mid)
            return anatomy.unembed(resid[:, 0])[:, self.pairs.symbols.to(device)]

        def _attend(self, block: Block, q: Tensor, k: Tensor, v: Tensor, window: Tensor) -> Tensor:
            """z of queries that stand at other positions in each row."""
            anatomy, flat = self.anatomy, window.flatten()
            src = torch.arange(k.shape[1], device=k.device)
            q = anatomy.queries(block, q.flatten(0, 1), flat).unflatten(0, window.shape)
            bias = anatomy.bias(block, flat, src).unflatten(1, window.shape).transpose(0, 1)
            keys = anatomy.expand_heads(anatomy.keys(block, k, src))
            scores = block.cap(torch.einsum("rdhe,rshe->rhds", q, keys) * block.scale) + bias
            return anatomy.mix(anatomy.softmax(scores, anatomy.sink(block, q, window)), v)

    return Tail


@contextmanager
def _frozen(raw: nn.Module) -> Iterator[None]:
    """The search must leave no gradients on the model's weights."""
    flags = [p.requires_grad for p in raw.parameters()]
    raw.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in zip(raw.parameters(), flags, strict=True):
            p.requires_grad_(flag)
