"""Parts sum to the model's margin, each is what its own output says, planted answers come from where they do."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens.tools import analysis

from interp import load, views
from interp.circuits.lens import logit_lens
from interp.circuits.logit_attribution import LogitAttribution, direct_logit_attribution
from interp.models import boot_bridge
from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching import logit_diff
from interp.patching.editing import forward_with_edits
from interp.tasks import Batch, Role, sample
from probes.planted import Plan, Planted, plant
from tests.interp.models.architecture_cases import build
from tests.interp.patching.models import BRIDGED, tiny

BATCH = sample("parity-aligned", 3, 3, seed=0)


def noisy(architecture: str) -> Any:
    """A tiny model whose norms and projections have gains and biases that matter."""
    model = copy.deepcopy(tiny(architecture))
    gen = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=gen)
    return model


@cache
def attributed(architecture: str) -> LogitAttribution:
    return direct_logit_attribution(boot_bridge(noisy(architecture)), BATCH)


@cache
def planted(mechanism: str, architecture: str) -> Planted:
    return plant(Plan(mechanism, architecture, longest=12))


@cache
def planted_bridge(mechanism: str, architecture: str) -> Any:
    return boot_bridge(copy.deepcopy(planted(mechanism, architecture).model))


def raw_margins(model: Any, batch: Batch) -> Tensor:
    """`[batch step]`, by patching's own metric on the raw model's logits."""
    steps = batch.step[batch.at(Role.OUTPUT)].tolist()
    with torch.no_grad():
        logits = model(batch.tokens).logits
    metrics = [logit_diff(batch, step) for step in steps]
    return torch.stack([m.compute(logits[:, m.positions], torch.arange(len(batch))) for m in metrics], dim=1).double()


@pytest.mark.parametrize("architecture", BRIDGED)
def test_parts_sum_to_the_raw_models_margin(architecture):
    found, expected = attributed(architecture), raw_margins(noisy(architecture), BATCH)
    assert torch.allclose(found.parts.sum(dim=0), expected, atol=1e-5)
    assert expected.abs().max() > 0.1
    heads = [f"L{layer}H{head}" for layer in range(3) for head in range(4)]
    assert set(heads) < set(found.components)
    assert len(found.components) == 12 + 3 + 2 + (architecture == "absolute")
    assert found.names == ("output 1", "output 2", "output 3")


@pytest.mark.parametrize("architecture", BRIDGED)
def test_each_part_is_what_its_output_alone_adds(architecture):
    """On the raw model taken apart; the bias is the rest, and is there only where the architecture has biases."""
    found, model = attributed(architecture), noisy(architecture)
    anatomy = anatomy_of(model)
    start = anatomy.embed(BATCH.tokens)
    keep: list = [(site, layer) for site in ("z", "mlp_out") for layer in range(3)]
    resid, kept = forward_with_edits(anatomy, start, keep=keep)
    at = BATCH.at(Role.OUTPUT)
    table, tokens = model.get_output_embeddings().weight, BATCH.tokens[:, at]
    others = BATCH.vocabulary.tokens(BATCH.format.outputs).sum() - tokens
    towards = (table[tokens] - table[others]).detach()

    def part(x: Tensor) -> Tensor:
        """Through the last norm, as it is at the whole residual."""
        norm: Any = anatomy.final_norm
        x, whole = x[:, at - 1].double(), resid[:, at - 1].double()
        if architecture == "grouped":  # RMS norm
            scale = (whole.square().mean(dim=-1, keepdim=True) + norm.variance_epsilon).sqrt()
        else:
            x = x - x.mean(dim=-1, keepdim=True)
            scale = (whole.var(dim=-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
        return ((x / scale * norm.weight) * towards).sum(dim=-1)

    for layer in range(3):
        out = torch.einsum("bphe,hed->bhpd", kept["z", layer], anatomy.output_weights(layer))
        for head in range(4):
            assert torch.allclose(found.of(f"L{layer}H{head}"), part(out[:, head]), atol=1e-5)
        assert torch.allclose(found.of(f"L{layer} MLP"), part(kept["mlp_out", layer]), atol=1e-5)
    position = found.of("position") if architecture == "absolute" else 0
    assert torch.allclose(found.of("embed") + position, part(start), atol=1e-5)
    assert (found.of("bias").abs().max() > 1e-3) == (architecture != "grouped")


def test_a_bias_of_the_logits_is_in_the_bias():
    model = noisy("rotary")
    plain = direct_logit_attribution(boot_bridge(copy.deepcopy(model)), BATCH)
    table = torch.nn.Linear(16, model.config.vocab_size)
    table.weight = model.get_output_embeddings().weight
    model.set_output_embeddings(table)
    found = direct_logit_attribution(boot_bridge(copy.deepcopy(model)), BATCH)
    assert torch.allclose(found.parts.sum(dim=0), raw_margins(model, BATCH), atol=1e-5)
    assert torch.allclose(found.parts[:-1], plain.parts[:-1], atol=1e-5)
    assert not torch.allclose(found.of("bias"), plain.of("bias"), atol=1e-4)


@pytest.mark.parametrize("architecture", ["absolute", "alibi", "parallel"])
def test_heads_say_what_transformer_lens_says_in_compatibility_mode(architecture):
    """There the gain is folded into W_U. Its value biases go into the attention's bias, so here they are zero."""
    model = copy.deepcopy(tiny(architecture))
    with torch.no_grad():
        norm = anatomy_of(model).final_norm
        norm.weight += torch.linspace(-0.5, 0.5, 16)  # pyright: ignore[reportOperatorIssue]
        norm.bias += torch.linspace(0.5, -0.5, 16)  # pyright: ignore[reportOperatorIssue]
    found = direct_logit_attribution(boot_bridge(copy.deepcopy(model)), BATCH)
    bridge = boot_bridge(copy.deepcopy(model))
    bridge.enable_compatibility_mode()
    at = int(BATCH.at(Role.OUTPUT, 2))
    answers = BATCH.tokens[:, at]
    others = BATCH.vocabulary.tokens(BATCH.format.outputs).sum() - answers
    theirs = analysis.direct_logit_attribution(bridge, BATCH.tokens, answers, others, unit="head", pos=at - 1)
    for name, value in zip(theirs.labels[:-1], theirs.attribution.detach(), strict=False):
        assert torch.allclose(found.of(name)[:, 1], value.double(), atol=1e-5), name
    assert theirs.labels[-1] == "remainder"
    assert theirs.attribution.abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_a_planted_anchors_answer_comes_from_the_last_mlp_alone(architecture):
    made = planted("A1", architecture)
    batch = sample("parity-aligned", 6, 8, 0, made.vocabulary)
    found = direct_logit_attribution(planted_bridge("A1", architecture), batch)
    assert (found.margin > 0).all()
    assert torch.allclose(found.parts.sum(dim=0), raw_margins(made.model, batch), rtol=1e-3, atol=1e-3)
    least = float(found.margin.min())
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    # The MLP writes 0 or 1, and the output takes one half off: a constant for each symbol, not a head's doing.
    for name in found.components:
        if "H" in name:
            assert found.of(name).abs().max() < 1e-3 * least, name
    answered = batch.tokens[:, batch.at(Role.OUTPUT)] == symbols[1]
    rest = found.margin - found.of("L1 MLP")
    for symbol in (answered, ~answered):
        assert rest[symbol].std() < 1e-2 * least
    assert found.top(1)[0][0] == "L1 MLP"
    assert (found.of("L0 MLP").abs() < 1e-3 * least).all()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_a_planted_answer_can_be_read_after_the_last_layer_alone(architecture):
    batch = sample("parity-aligned", 6, 8, 0, planted("A1", architecture).vocabulary)
    found = logit_lens(planted_bridge("A1", architecture), batch)
    right = (found.margin > 0).double().mean(dim=(1, 2))
    assert right[-1] == 1
    assert (found.rank[-1] == 0).all()
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    share = float((batch.tokens[:, batch.at(Role.OUTPUT)] == symbols[0]).double().mean())
    for early in right[:-1].tolist():  # one answer for all prompts
        assert min(abs(early - share), abs(early - 1 + share)) < 1e-9
    assert (found.rank[0] > 0).any()


@pytest.mark.parametrize("architecture", BRIDGED)
def test_the_last_entry_of_the_lens_is_the_model_and_the_first_its_embedding(architecture):
    model = noisy(architecture)
    found = logit_lens(boot_bridge(noisy(architecture)), BATCH)
    at = BATCH.at(Role.OUTPUT)
    with torch.no_grad():
        logits = model(BATCH.tokens).logits[:, at - 1]
        anatomy = anatomy_of(model)
        first = anatomy.unembed(anatomy.embed(BATCH.tokens)[:, at - 1])
    answers = BATCH.tokens[:, at].unsqueeze(-1)
    for layer, expected in ((-1, logits), (0, first)):
        log_prob = expected.log_softmax(dim=-1).gather(-1, answers).squeeze(-1).double()
        rank = (expected > expected.gather(-1, answers)).sum(dim=-1)
        assert torch.allclose(found.log_prob[layer], log_prob, atol=1e-4)
        assert torch.equal(found.rank[layer], rank)
    assert torch.allclose(found.margin[-1], raw_margins(model, BATCH), atol=1e-5)
    assert len(found.margin) == 4
    assert not torch.allclose(found.margin[0], found.margin[-1], atol=0.1)


def test_answers_against_another_batch():
    batch = sample("addition-none", 3, (2, 2), seed=0)
    other = batch.with_tokens(batch.tokens.flip(0))
    bridge = boot_bridge(copy.deepcopy(tiny("none")))
    for role in (Role.OUTPUT, Role.ANSWER):
        found = direct_logit_attribution(bridge, batch, role=role, against=other)
        at = batch.at(role)
        with torch.no_grad():
            logits = tiny("none")(batch.tokens).logits[:, at - 1]
        own, rival = (logits.gather(-1, b.tokens[:, at].unsqueeze(-1)).squeeze(-1) for b in (batch, other))
        assert torch.allclose(found.margin, (own - rival).double(), atol=1e-5)
        assert found.margin.abs().max() > 0.1
        assert torch.equal(found.positions, at - 1)
        same = batch.tokens[:, at] == other.tokens[:, at]
        assert (found.parts[:, same] == 0).all()
        assert torch.equal(logit_lens(bridge, batch, role=role, against=other).margin[-1] == 0, same)


def test_one_answer_of_one_prompt():
    batch = sample("parity-direct", 1, 4, seed=0)
    found = direct_logit_attribution(boot_bridge(noisy("alibi")), batch)
    assert found.parts.shape == (17, 1, 1)
    assert found.to_dataframe().error.isna().all()


def test_chunks_do_not_matter_and_tables_are_means(monkeypatch):
    bridge = boot_bridge(noisy("absolute"))
    parts, layers = direct_logit_attribution(bridge, BATCH), logit_lens(bridge, BATCH)
    monkeypatch.setattr("interp.circuits.components.numbers", lambda share, device: 1)
    assert torch.allclose(direct_logit_attribution(bridge, BATCH).parts, parts.parts, atol=1e-6)
    assert torch.allclose(logit_lens(bridge, BATCH).margin, layers.margin, atol=1e-5)
    table = parts.to_dataframe()
    row = table[(table.component == "L1 MLP") & (table["name"] == "output 2")].iloc[0]
    values = parts.of("L1 MLP")[:, 1]
    assert row["mean"] == pytest.approx(float(values.mean()))
    assert row["mean"] == pytest.approx(float(parts.by_position()[parts.components.index("L1 MLP"), 1]))
    assert row.error == pytest.approx(float(values.std() / 3**0.5))
    lens = layers.to_dataframe()
    assert len(lens) == 4 * 3
    row = lens[(lens.layer == 1) & (lens["name"] == "output 3")].iloc[0]
    assert row.margin == pytest.approx(float(layers.by_position()[1, 2]))


def test_parts_that_do_not_sum_are_refused(monkeypatch):
    model = noisy("alibi")
    direct_logit_attribution(model, BATCH)
    monkeypatch.setattr(Anatomy, "output_bias", lambda self, layer: torch.zeros(1, 16))
    with pytest.raises(RuntimeError, match="differs from the model's margin"):
        direct_logit_attribution(model, BATCH)


@pytest.mark.parametrize("architecture", BRIDGED)
def test_what_is_removed_is_the_norm_computed_anew(architecture):
    """By hand: the last residual without a component, through the model's own norm and unembedding."""
    model = noisy(architecture)
    anatomy, found = anatomy_of(model), direct_logit_attribution(model, BATCH)
    keep: list = [("z", 1), ("mlp_out", 2)]
    resid, kept = forward_with_edits(anatomy, anatomy.embed(BATCH.tokens), keep=keep)
    at = BATCH.at(Role.OUTPUT)
    answers = BATCH.tokens[:, at]
    others = BATCH.vocabulary.tokens(BATCH.format.outputs).sum() - answers

    def margin(x: Tensor) -> Tensor:
        logits = anatomy.unembed(x[:, at - 1]).detach()
        own, other = (logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) for ids in (answers, others))
        return (own - other).double()

    head = torch.einsum("bpe,ed->bpd", kept["z", 1][:, :, 3], anatomy.output_weights(1)[3])
    for name, out in {"L1H3": head, "L2 MLP": kept["mlp_out", 2]}.items():
        removed = found.removed[found.components.index(name)]
        assert torch.allclose(removed, margin(resid) - margin(resid - out), atol=1e-4)
        assert not torch.allclose(removed, found.of(name), atol=1e-3)  # the norm matters


@pytest.mark.parametrize("architecture", ["alibi", "absolute", "grouped"])
def test_neurons_are_the_parts_of_their_mlp(architecture):
    model = noisy(architecture)
    whole, split = direct_logit_attribution(model, BATCH), direct_logit_attribution(model, BATCH, neurons=1)
    neurons = torch.stack([split.of(name) for name in split.components if name.startswith("L1N")])
    bias = split.of("L1 MLP bias")
    assert torch.allclose(neurons.sum(dim=0) + bias, whole.of("L1 MLP"), atol=1e-5)
    assert neurons.abs().max() > 1e-3
    assert torch.allclose(split.of("L1H2"), whole.of("L1H2"))
    assert torch.allclose(split.by_layer(), whole.by_layer(), atol=1e-5)
    anatomy = anatomy_of(model)
    _, kept = forward_with_edits(anatomy, anatomy.embed(BATCH.tokens), keep=[("mlp_post", 1)])
    alone = torch.zeros_like(kept["mlp_post", 1])
    alone[..., 5] = kept["mlp_post", 1][..., 5]
    block = anatomy.blocks[1]
    out = (block.mlp_write(alone) - block.mlp_write(torch.zeros_like(alone))).detach()
    single = direct_part(model, out)
    for which, expected in zip(("parts", "removed"), single, strict=True):
        assert torch.allclose(getattr(split, which)[split.components.index("L1N5")], expected, atol=1e-5), which
    with pytest.raises(ValueError, match="there is no layer 9"):
        direct_logit_attribution(model, BATCH, neurons=[9])


def direct_part(model: Any, out: Tensor) -> tuple[Tensor, Tensor]:
    """An output's part and what removing it costs, by the raw model's own norm and unembedding."""
    anatomy = anatomy_of(model)
    resid, _ = forward_with_edits(anatomy, anatomy.embed(BATCH.tokens))
    at = BATCH.at(Role.OUTPUT)
    answers = BATCH.tokens[:, at]
    others = BATCH.vocabulary.tokens(BATCH.format.outputs).sum() - answers
    table = model.get_output_embeddings().weight.double()
    towards = (table[answers] - table[others]).detach()
    norm: Any = anatomy.final_norm

    def margin(x: Tensor) -> Tensor:
        return (norm(x.float()).double() * towards).sum(dim=-1).detach()

    whole, x = resid[:, at - 1].double(), out[:, at - 1].double()
    part = x
    if hasattr(norm, "variance_epsilon"):
        scale = (whole.square().mean(dim=-1, keepdim=True) + norm.variance_epsilon).sqrt()
    else:
        part = part - part.mean(dim=-1, keepdim=True)
        scale = (whole.var(dim=-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    return ((part / scale * norm.weight) * towards).sum(dim=-1).detach(), margin(whole) - margin(whole - x)


def test_several_positions_are_read_at_once():
    model, tokens = tiny("rotary"), BATCH.tokens
    both = direct_logit_attribution(model, tokens, answer=3, other=4, position=[2, -1])
    for i, position in enumerate((2, -1)):
        one = direct_logit_attribution(model, tokens, answer=3, other=4, position=position)
        assert torch.allclose(both.parts[..., i], one.parts[..., 0], atol=1e-6)
    lens = logit_lens(model, tokens, answer=3, position=range(tokens.shape[1]))
    assert lens.margin.shape == (4, 3, tokens.shape[1])
    with pytest.raises(ValueError, match="position 99 is past the end"):
        logit_lens(model, tokens, answer=3, position=[0, 99])


@pytest.mark.parametrize("case", ["opt", "cohere", "granite", "cwm", "glm4"])
def test_architectures_with_projections_factors_and_norms_after_attention(case):
    """TransformerLens does not serve all of these."""
    model, tokens = build(case), torch.randint(1, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    found = direct_logit_attribution(model, tokens, answer=3, other=4)
    with torch.no_grad():
        logits = model(tokens).logits[:, -1]
    assert torch.allclose(found.margin[:, 0], (logits[:, 3] - logits[:, 4]).double(), atol=1e-5)
    assert ("L0 attention" in found.components) == (case == "glm4")
    assert torch.allclose(logit_lens(model, tokens, answer=3, other=4).margin[-1], found.margin, atol=1e-5)


def test_the_lens_has_the_likeliest_tokens_and_reads_the_models_own_without_an_answer(saved_families):
    run = load(saved_families / "rotary")
    found = logit_lens(run, "1 a 2 b", position=[1, -1])
    raw: Any = run.raw
    with torch.no_grad():
        out = raw(found.prompts.tokens, output_hidden_states=True)
        first = raw.lm_head(raw.gpt_neox.final_layer_norm(out.hidden_states[0][:, [1, -1]]))
    assert torch.equal(found.likeliest[-1], out.logits[:, [1, -1]].argmax(dim=-1))
    assert torch.equal(found.likeliest[0], first.argmax(dim=-1))
    assert torch.allclose(found.margin[-1], out.logits[:, [1, -1]].amax(dim=-1).double(), atol=1e-5)
    assert (found.rank[-1] == 0).all()
    assert found.words()[0] == [run.tokenizer.decode([i]) for i in found.likeliest[0, 0].tolist()]
    assert not torch.equal(found.likeliest[0], found.likeliest[-1])
    assert found.words()[0][1] in views.lens(found).alt or found.words()[0][1] in views.lens(found).still.decode()


def test_capped_logits_are_no_sum_and_any_decoder_has_a_lens():
    tokens = torch.randint(1, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="gemma2 caps its logits"):
        direct_logit_attribution(build("gemma2"), tokens, answer=3, other=4)
    model = build("mamba")
    lens = logit_lens(model, tokens, answer=3, other=4)
    with torch.no_grad():
        logits = model(tokens).logits[:, -1]
    assert torch.allclose(lens.margin[-1, :, 0], (logits[:, 3] - logits[:, 4]).double(), atol=1e-5)


def test_mistakes_name_the_choices():
    bridge = boot_bridge(noisy("alibi"))
    with pytest.raises(ValueError, match="10 answers"):
        logit_lens(bridge, sample("addition-none", 2, (2, 2), seed=0))
    with pytest.raises(ValueError, match="OUTPUT, ANSWER"):
        direct_logit_attribution(bridge, BATCH, role=Role.INPUT)
    with pytest.raises(ValueError, match="no prompts"):
        direct_logit_attribution(bridge, BATCH.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="there are embed, L0H0"):
        direct_logit_attribution(bridge, BATCH).of("L9H9")
