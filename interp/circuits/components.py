"""What each component of a model writes to the last residual, as inner products with the directions of answers.

The activations are those of the raw model's own forward pass, recorded by hooks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.circuits.answers import AnswerTokens
from interp.circuits.composing import last_norm, project_embeddings
from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.models.architectures.block import Block
from interp.models.architectures.norms import NormParts
from interp.models.native import NativeRaw
from interp.patching.editing import SHARE
from interp.patching.reference import recording
from interp.support.budget import numbers
from interp.tasks import Prompts

Kept = dict[str, dict[int, Tensor]]


def recorded_passes(
    anatomy: Anatomy | GenericAnatomy,
    prompts: Prompts,
    sites: Mapping[str, Sequence[int]],
    at: Int[Tensor, " read"],
    copies: int,
) -> Iterator[tuple[Tensor, Float[Tensor, "row read d_vocab"], Kept]]:
    """Iterate over the indices of some prompts, their logits at positions, and sites by layer, in the raw model's pass.

    `sites` are the layers of each site that are kept; `copies` the numbers that are needed beside, per position that
    is read.
    """
    raw: Any = anatomy.raw
    kept_layers = sum(map(len, sites.values()))
    floats = prompts.n_pos * (kept_layers + 8) * anatomy.d_model + len(at) * (2 * raw.config.vocab_size + copies)
    positions = at.to(anatomy.device)
    for rows in torch.arange(len(prompts)).split(max(1, numbers(SHARE, anatomy.device) // floats)):
        with ExitStack() as stack:
            kept = {site: stack.enter_context(recording(anatomy, site, layers)) for site, layers in sites.items()}
            tokens = prompts.tokens[rows].to(anatomy.device)
            logits = raw(tokens, use_cache=False, logits_to_keep=positions).logits
        by_site = {site: {layer: x[:, positions] for layer, x in layers.items()} for site, layers in kept.items()}
        yield rows, logits, by_site


@dataclass(frozen=True, eq=False)
class AnswerReadout:
    """The margin of answers as a linear function of the normed last residual, at the positions that are read.

    Shapes:
        towards: `[row read d_model]`, the direction of the answer less that of the other, times the last norm's gain;
                 without the mean direction where the norm subtracts the mean.
        final:   `[row read d_model]`, the last residual, centred where the norm centres.
        constant: `[row read]`, what the shift of the norm and the biases of the logits add.
    """

    norm: NormParts
    towards: Float[Tensor, "row read d_model"]
    final: Float[Tensor, "row read d_model"]
    constant: Float[Tensor, "row read"]

    def of_outputs(self, out: Float[Tensor, "row read *part d_model"]) -> Float[Tensor, "2 *part row read"]:
        """Return the part of each output at the last norm's own scale, and what the margin loses without it."""
        more = (slice(None), slice(None), *(None,) * (out.ndim - 3))
        out = out.double()
        centred = out - out.mean(dim=-1, keepdim=True) if self.norm.centres else out
        towards, along = (
            (a * x[more]).sum(dim=-1).movedim((0, 1), (-2, -1)) for a, x in ((out, self.towards), (centred, self.final))
        )
        return self.of_products(towards, along / out.shape[-1], centred.square().mean(dim=-1).movedim((0, 1), (-2, -1)))

    def of_products(self, towards: Tensor, along: Tensor, square: Tensor) -> Float[Tensor, "2 *part row read"]:
        """As `of_outputs`, from the products of outputs with `towards`, and means over d_model of their products with
        `final` and with themselves; each `[*part row read]`."""
        whole = (self.final * self.towards).sum(dim=-1)
        spread = self.final.square().mean(dim=-1) + self.norm.epsilon
        if not self.norm.scales:
            return torch.stack([towards, towards])
        without = (whole - towards) / (spread - 2 * along + square).clamp_min(self.norm.epsilon).sqrt()
        return torch.stack([towards / spread.sqrt(), whole / spread.sqrt() - without])


def readout_of(
    anatomy: Anatomy, tokens: AnswerTokens, rows: Tensor, final: Float[Tensor, "row read d_model"]
) -> AnswerReadout:
    """Return how the margins of some prompts are read from the last residual.

    Raises `ValueError` where the architecture caps the logits, since they are no sum of parts then.
    """
    norm, head = last_norm(anatomy), anatomy.raw.get_output_embeddings()
    weight, bias, factor = head.weight, getattr(head, "bias", None), _factor(anatomy)  # type: ignore[union-attr]

    def rows_of(ids: Tensor) -> tuple[Tensor, Tensor]:
        ids = ids[rows].to(anatomy.device)
        directions = weight[ids].double()  # type: ignore[index]
        if anatomy.before_head is not None:  # OPT's projection
            assert isinstance(anatomy.before_head, nn.Linear)
            directions = directions @ anatomy.before_head.weight.double()
        offsets = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
        return factor * directions, offsets if bias is None else factor * bias[ids].double()

    direction, offset = rows_of(tokens.answers)
    if tokens.others is not None:
        other, other_offset = rows_of(tokens.others)
        direction, offset = direction - other, offset - other_offset
    towards, final = direction * norm.gain, final.double()
    if norm.centres:
        towards, final = (x - x.mean(dim=-1, keepdim=True) for x in (towards, final))
    return AnswerReadout(norm, towards, final, constant=offset + direction @ norm.shift)


def _factor(anatomy: Anatomy) -> float:
    """Return the factor of the logits."""
    if anatomy.finish is None:
        return 1.0
    zero, one, two = anatomy.finish(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)).tolist()
    if zero or abs(two - 2 * one) > 1e-9:
        raise ValueError(f"{anatomy.raw.config.model_type} caps its logits, so that they are not a sum of parts")
    return one


def component_sites(anatomy: Anatomy, neurons: Collection[int]) -> dict[str, list[int]]:
    """Return the layers of the sites that `components` reads."""
    blocks = anatomy.blocks
    return {
        "resid_pre": [0],
        "z": [i for i, block in enumerate(blocks) if block.linear_output],
        "attn_out": [i for i, block in enumerate(blocks) if not block.linear_output],
        "mlp_out": [i for i, block in enumerate(blocks) if block.has_mlp],
        "mlp_post": sorted(neurons),
        "resid_post": [len(blocks) - 1],
    }


def split_components(
    anatomy: Anatomy,
    prompts: Prompts,
    rows: Tensor,
    at: Tensor,
    kept: Kept,
    readout: AnswerReadout,
    neurons: Collection[int],
) -> Iterator[tuple[list[str], Float[Tensor, "2 part row read"]]]:
    """Iterate over the names of components, in the order in which they write, and what `AnswerReadout` says of them."""
    start, position = kept["resid_pre"][0], _position(anatomy, prompts.n_pos)
    if position is None:
        yield ["embed"], readout.of_outputs(start.unsqueeze(2))
    else:
        added = position[at.to(position.device)].expand_as(start)
        yield ["embed", "position"], readout.of_outputs(torch.stack([start - added, added], dim=2))
    bias = torch.zeros(anatomy.d_model, dtype=anatomy.dtype, device=anatomy.device)
    for layer, block in enumerate(anatomy.blocks):
        if block.linear_output:
            z, own = kept["z"][layer], anatomy.output_bias(layer)[0]
            alone = z.unsqueeze(2) * torch.eye(anatomy.n_heads, dtype=z.dtype, device=z.device).unsqueeze(-1)
            names, outputs = [f"L{layer}H{h}" for h in range(anatomy.n_heads)], block.attn_out(alone) - own
            bias = bias + own
        else:
            names, outputs = [f"L{layer} attention"], kept["attn_out"][layer].unsqueeze(2)
        if block.has_mlp and layer not in neurons:
            names, outputs = [*names, f"L{layer} MLP"], torch.cat([outputs, kept["mlp_out"][layer].unsqueeze(2)], 2)
        yield names, readout.of_outputs(outputs)
        if layer in neurons:
            written, post = _neuron_weights(block), kept["mlp_post"][layer]
            yield [f"L{layer}N{i}" for i in range(post.shape[-1])], _of_neurons(readout, post, written)
            rest = block.mlp_write(torch.zeros_like(post)).unsqueeze(2)
            yield [f"L{layer} MLP bias"], readout.of_outputs(rest)
    yield ["bias"], readout.of_outputs(bias.expand_as(start).unsqueeze(2)) + readout.constant


def _of_neurons(
    readout: AnswerReadout, post: Float[Tensor, "row read d_mlp"], written: Float[Tensor, "d_mlp d_model"]
) -> Float[Tensor, "2 d_mlp row read"]:
    """As `AnswerReadout.of_outputs`, without a vector per neuron and position."""
    written, post = written.double(), post.double().permute(2, 0, 1)
    centred = written - written.mean(dim=-1, keepdim=True) if readout.norm.centres else written
    towards, along = (
        torch.einsum("nd,rsd->nrs", a, x) for a, x in ((written, readout.towards), (centred, readout.final))
    )
    square = post.square() * centred.square().mean(dim=-1).view(-1, 1, 1)
    return readout.of_products(post * towards, post * along / written.shape[-1], square)


def _neuron_weights(block: Block) -> Float[Tensor, "d_mlp d_model"]:
    """Return what each neuron writes per unit of mlp_post."""
    match block.mlp_last:
        case nn.Linear() as last:
            return last.weight.T * block.gain
        case Conv1D() as last:
            return last.weight * block.gain
    raise ValueError(f"the neurons of a {type(block.mlp_last).__name__} are not taken apart")


def _position(anatomy: Anatomy, n_pos: int) -> Float[Tensor, "pos d_model"] | None:
    """Return what learned positions add to the embeddings; None where nothing is added that depends on them alone."""
    raw: Any = anatomy.raw
    table: Any = raw.body.tok_embed if isinstance(raw, NativeRaw) else raw.get_input_embeddings()
    tokens = torch.arange(2, device=anatomy.device).unsqueeze(1).expand(2, n_pos)
    embedded = anatomy.start(tokens)
    own = table(tokens) if isinstance(raw, NativeRaw) else project_embeddings(anatomy, table(tokens))
    first, second = embedded - own
    scale = float(embedded.abs().max())
    same = float((first - second).abs().max()) <= 1e-5 * scale
    return first if same and float(first.abs().max()) > 1e-5 * scale else None
