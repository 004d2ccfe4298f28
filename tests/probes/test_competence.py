import pytest
import torch

from interp.forward import correct, generate
from interp.models import ModelConfig, build_model
from interp.tasks import Role, default_vocabulary, sample
from probes import competence
from probes.competence import accuracies, accuracies_in, modes_of
from tests.probes.oracle_models import OracleModel


def by_metric(model, batch, mode="forced"):
    return {a.metric: a for a in accuracies(model, batch, mode)}


def test_a_model_that_is_always_right_scores_one():
    batch = sample("parity-aligned", 40, 12, seed=0)
    for a in by_metric(OracleModel(batch, share=1.0), batch).values():
        assert a.estimate.value == 1.0
        assert a.n == 40


def test_chance_levels():
    batch = sample("parity-aligned", 4, 10, seed=0)
    found = by_metric(OracleModel(batch, share=1.0), batch)
    assert {m: a.chance for m, a in found.items()} == {
        "step": 0.5,
        "exact": 0.5**10,
        "final": 0.5,
        "free step": 0.5,
    }
    batch = sample("addition-none", 4, 3, seed=0)
    model = build_model(ModelConfig("none", 1, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    found = by_metric(model, batch)
    assert found["step"].chance == pytest.approx(0.1)
    assert found["exact"].chance == pytest.approx(0.1**8)
    assert found["final"].chance == pytest.approx(0.1**4)


POOL = len(default_vocabulary().labels)
EVERY_LABEL = POOL + len(default_vocabulary().held_out)


@pytest.mark.parametrize(
    ("fmt", "step", "exact", "final"),
    [
        ("parity-aligned", 0.5 / POOL, (0.5 / POOL) ** 3, 0.5),
        ("parity-suffix", 0.5 / POOL, (0.5 / POOL) ** 3, 0.5),  # the last token is a label
        ("parity-gap2", 0.5 / POOL, (0.5 / POOL) ** 3, 0.5),  # fillers can be one token only
        ("parity-constant", 0.5, 0.5**3, 0.5),  # fixed labels too
        ("parity-cyclic", 0.5, 0.5**3, 0.5),
        ("recall-ordered", 1 / 16 / EVERY_LABEL, (1 / 16 / EVERY_LABEL) ** 3, 1 / 16),
        # Four output digits, then four digits of the answer, each after its label.
        ("addition-aligned", 0.1 / POOL, (0.1 / POOL) ** 8, 0.1**4),
    ],
)
def test_written_labels_are_guessed_too(fmt, step, exact, final):
    batch = sample(fmt, 4, 3, seed=0)
    model = build_model(ModelConfig("none", 1, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    found = {m: a.chance for m, a in by_metric(model, batch, "written").items()}
    answer = 1 / len(batch.format.outputs)
    assert found == pytest.approx({"step": step, "exact": exact, "final": final, "free step": answer}, rel=1e-12, abs=0)
    given = {m: a.chance for m, a in by_metric(model, batch).items()}
    assert given["step"] == pytest.approx(answer)


def test_steps_with_two_labels_have_their_own_chance():
    """Non-aligned addition cites both operands' labels before a digit: the chance of a step is the mean over steps."""
    batch = sample("addition-nonaligned", 2, 2, seed=0)
    at = batch.predicted(forced=False)
    chances = competence.token_chances(batch, at)
    role, step = batch.role[at].tolist(), batch.step[at].tolist()
    kinds = {Role.OUTPUT: (Role.OUTPUT, Role.OUTPUT_LABEL), Role.ANSWER: (Role.ANSWER, Role.ANSWER_LABEL)}
    literal = []
    for r, s in zip(role, step, strict=True):
        if r in kinds:
            labels = sum(other in kinds[r] and there == s for other, there in zip(role, step, strict=True)) - 1
            literal.append(0.1 / POOL**labels)
    model = build_model(ModelConfig("none", 1, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    found = by_metric(model, batch, "written")
    assert len(set(literal)) > 1
    assert found["step"].chance == pytest.approx(sum(literal) / len(literal), rel=1e-12)
    assert found["exact"].chance == pytest.approx(float(chances.prod()), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "fmt",
    ["parity-aligned", "parity-suffix", "parity-constant", "parity-interleaved", "parity-direct", "addition-none"],
)
def test_metrics_equal_a_literal_recount(fmt):
    """On a random model, against decoding every prompt; a written step needs its label."""
    length = 4
    batch = sample(fmt, 12, length, seed=1)
    model = build_model(ModelConfig("alibi", 1, 16, 2), len(default_vocabulary().ids), seed=1).eval()
    for mode in modes_of(batch):
        found = by_metric(model, batch, mode)
        at = batch.predicted(mode == "forced")
        decoded = generate(model, batch, mode == "forced").tokens
        exact = sum(decoded[r].tolist() == batch.tokens[r].tolist() for r in range(12)) / 12
        assert found["exact"].estimate.value == pytest.approx(exact)
        answers = torch.isin(batch.role, torch.tensor((Role.OUTPUT, Role.ANSWER)))
        free = (decoded == batch.tokens)[:, answers].double().mean()
        assert found["free step"].estimate.value == pytest.approx(float(free))
        right = dict(zip(at.tolist(), correct(model, batch, at).T, strict=True))
        labelled = batch.at(Role.OUTPUT_LABEL).tolist() if batch.format.labels and mode == "written" else []
        ends = answers.nonzero().flatten().tolist()
        beside = 1 if fmt == "parity-suffix" else -1
        step = torch.stack([right[p] & right[p + beside] if p + beside in labelled else right[p] for p in ends])
        assert found["step"].estimate.value == pytest.approx(float(step.double().mean()))
        last = (batch.role == Role.ANSWER).nonzero().flatten().tolist() or ends[-1:]
        final = (decoded == batch.tokens)[:, last].all(dim=1).double().mean()
        assert found["final"].estimate.value == pytest.approx(float(final))


@pytest.mark.parametrize(
    ("fmt", "modes"),
    [
        ("parity-aligned", ("forced", "written")),
        ("parity-nonaligned", ("forced",)),
        ("parity-scratchpad", ("forced",)),
        ("addition-zeropad", ("forced", "written")),
    ],
)
def test_modes(fmt, modes):
    assert modes_of(sample(fmt, 1, 3, seed=0)) == modes


def test_one_pass_serves_both_modes(monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 12, 4, seed=1)
    model = build_model(ModelConfig("alibi", 1, 16, 2), len(default_vocabulary().ids), seed=1).eval()
    right = torch.rand(12, batch.n_pos, generator=torch.Generator().manual_seed(0)) < 0.8
    passes: list[torch.Tensor] = []
    monkeypatch.setattr(competence, "correct", lambda m, b, at: passes.append(at) or right[:, at])
    apart = [row for mode in modes_of(batch) for row in accuracies(model, batch, mode)]
    passes.clear()
    assert accuracies_in(model, batch, modes_of(batch)) == apart
    assert len(passes) == 1
    assert len({(row.mode, row.estimate.value) for row in apart if row.metric == "step"}) == 2
