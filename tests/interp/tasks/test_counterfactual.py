"""Each edit changes what it names, at all its positions, and nothing else."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.tasks import LABEL_ROLES, Role, default_vocabulary, parse_format, sample
from interp.tasks.counterfactual import flip_input, redraw, rename_labels, reorder_labels, swap_labels
from tests.interp.tasks import oracle
from tests.interp.tasks.test_addition import literal as addition_literal
from tests.interp.tasks.test_formats import FORMATS, SHORT
from tests.interp.tasks.test_parity import literal as parity_literal

DEFAULT = default_vocabulary()
LABELLED = [name for name in FORMATS if parse_format(name).labels]
POOLED = [name for name in FORMATS if parse_format(name).labels == "pool"]
RECOMPUTABLE = [name for name in FORMATS if not name.startswith("recall")]
ADDITION = [name for name in FORMATS if name.startswith("addition")]
# cyclic1 and constant have one label, which has nothing to be swapped with.
SWAPPABLE = [name for name in LABELLED if name not in ("parity-constant", "parity-cyclic1")]
IN, OUT = ("M17", "M4", "M52"), ("M9", "M30", "M61")


def lengths(name):
    return ((4, 4), (5, 2), (2, 5)) if name.startswith("addition") else (4, 11)


def check_same_layout(before, after):
    assert after.tokens.shape == before.tokens.shape
    assert torch.equal(after.role, before.role)
    assert torch.equal(after.step, before.step)
    assert (after.format, after.length, after.vocabulary) == (before.format, before.length, before.vocabulary)


def changed(before, after, row=0):
    """Names of the positions whose tokens differ."""
    return [before.name(pos) for pos in (before.tokens[row] != after.tokens[row]).nonzero().flatten().tolist()]


def label_names(batch):
    return [batch.name(pos) for pos in range(batch.n_pos) if batch.role[pos] in LABEL_ROLES]


# Edits that apply to every format that they are listed with.
EDITS = {
    "swap input labels": (SWAPPABLE, lambda b: swap_labels(b, 1, 2)),
    "swap output labels": (SWAPPABLE, lambda b: swap_labels(b, 2, 1, role=Role.OUTPUT_LABEL)),
    "rename": (LABELLED, lambda b: rename_labels(b, seed=3)),
    "rename held out": (LABELLED, lambda b: rename_labels(b, seed=3, held_out=True)),
    "flip, keep": (FORMATS, lambda b: flip_input(b, 2)),
    "flip, recompute": (RECOMPUTABLE, lambda b: flip_input(b, 2, "recompute")),
    "redraw": (FORMATS, lambda b: redraw(b, seed=3)),
    "redraw bits": (RECOMPUTABLE, lambda b: redraw(b, seed=3, keep="labels")),
    "redraw labels": (POOLED, lambda b: redraw(b, seed=3, keep="inputs")),
}


@pytest.mark.parametrize(("edit", "name"), [(e, name) for e, (names, _) in EDITS.items() for name in names])
def test_an_edit_keeps_the_layout_changes_every_prompt_and_not_its_input(edit, name):
    for length in lengths(name)[:2]:
        batch = sample(name, 8, length, seed=0)
        before = batch.tokens.clone()
        after = EDITS[edit][1](batch)
        check_same_layout(batch, after)
        assert torch.equal(batch.tokens, before)
        assert after.tokens.data_ptr() != batch.tokens.data_ptr()
        if name != "parity-cyclic1" and name != "parity-constant":
            assert (after.tokens != before).any(dim=1).sum() >= 7
        assert torch.equal(EDITS[edit][1](batch).tokens, after.tokens)


SWAPS = [
    # format, content, i, j, role, text
    ("parity-aligned", (IN, IN), 1, 3, "INPUT", ">>> M52 0 M4 1 M17 1 === M17 0 M4 1 M52 0"),
    ("parity-aligned", (IN, IN), 3, 1, "INPUT", ">>> M52 0 M4 1 M17 1 === M17 0 M4 1 M52 0"),
    ("parity-aligned", (IN, IN), 1, 3, "OUTPUT", ">>> M17 0 M4 1 M52 1 === M52 0 M4 1 M17 0"),
    ("parity-nonaligned", (IN, OUT), 2, 3, "INPUT", ">>> M17 0 M52 1 M4 1 === M9 0 M30 1 M61 0"),
    ("parity-nonaligned", (IN, OUT), 2, 3, "OUTPUT", ">>> M17 0 M4 1 M52 1 === M9 0 M61 1 M30 0"),
    ("parity-numeric", ("123", "123"), 1, 2, "INPUT", ">>> 2 a 1 b 3 b === 1 a 2 b 3 a"),
    ("parity-cyclic2", (("c1", "c2", "c1"),) * 2, 1, 2, "INPUT", ">>> c2 0 c1 1 c2 1 === c1 0 c2 1 c1 0"),
    ("parity-gap1", (IN, IN), 1, 2, "OUTPUT", ">>> M17 _ 0 M4 _ 1 M52 _ 1 === M4 _ 0 M17 _ 1 M52 _ 0"),
    (
        "addition-aligned",
        ("M2", "M1", "M3"),
        1,
        2,
        "INPUT",
        ">>> M2 1 M1 2 M3 + M1 9 M3 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-aligned",
        ("M2", "M1", "M3"),
        1,
        3,
        "OUTPUT",
        ">>> M1 1 M2 2 M3 + M2 9 M3 === M3 1 M1 2 M2 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-aligned",
        ("M2", "M1", "M3"),
        1,
        3,
        "ANSWER",
        ">>> M1 1 M2 2 M3 + M2 9 M3 === M2 1 M1 2 M3 0 ### M2 0 M1 2 M3 1",
    ),
    (
        "addition-zeropad",
        ("M2", "M1", "M3"),
        2,
        3,
        "INPUT",
        ">>> M3 1 M2 2 M1 + M3 0 M2 9 M1 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-nonaligned",
        ("M2", "M1", "M3"),
        1,
        2,
        "INPUT",
        ">>> M2 1 M1 2 + M3 9 === M3 M2 1 M1 2 0 ### 0 M1 2 M3 M2 1",
    ),
    (
        "addition-nonaligned",
        ("M2", "M1", "M3"),
        1,
        2,
        "OUTPUT",
        ">>> M1 1 M2 2 + M3 9 === M3 M1 1 M2 2 0 ### 0 M1 2 M3 M2 1",
    ),
    (
        "addition-nonaligned",
        ("M2", "M1", "M3"),
        1,
        2,
        "ANSWER",
        ">>> M1 1 M2 2 + M3 9 === M3 M2 1 M1 2 0 ### 0 M2 2 M3 M1 1",
    ),
]


@pytest.mark.parametrize(("name", "content", "i", "j", "side", "text"), SWAPS)
def test_a_swap_is_literally_this(name, content, i, j, side, text):
    parity = name.startswith("parity")
    batch = parity_literal(name, *content) if parity else addition_literal(name, content)
    assert swap_labels(batch, i, j, role=Role[f"{side}_LABEL"]).text() == text


@pytest.mark.parametrize("name", SWAPPABLE)
@pytest.mark.parametrize("role", LABEL_ROLES)
def test_a_swap_touches_labels_of_its_side_alone_and_two_swaps_none(name, role):
    if role == Role.ANSWER_LABEL and name not in ADDITION:
        return
    for length in lengths(name):
        batch = sample(name, 6, length, seed=1)
        swapped = swap_labels(batch, 1, 2, role)
        at = batch.at(role)
        elsewhere = torch.ones(batch.n_pos, dtype=torch.bool).index_fill(0, at, False)
        assert torch.equal(swapped.tokens[:, elsewhere], batch.tokens[:, elsewhere])
        assert (swapped.tokens[:, at] != batch.tokens[:, at]).any(dim=1).all()
        assert torch.equal(swap_labels(swapped, 1, 2, role).tokens, batch.tokens)
        assert torch.equal(swap_labels(batch, 2, 1, role).tokens, swapped.tokens)


@given(st.sampled_from(SWAPPABLE[:3]), st.integers(2, 20), st.integers(0, 99), st.data())
@settings(deadline=None, max_examples=30)
def test_a_swap_of_any_two_steps_changes_those_two_positions(name, length, seed, data):
    i, j = data.draw(st.lists(st.integers(1, length), min_size=2, max_size=2, unique=True))
    role = data.draw(st.sampled_from([Role.INPUT_LABEL, Role.OUTPUT_LABEL]))
    batch = sample(name, 2, length, seed)
    swapped = swap_labels(batch, i, j, role)
    for row in range(2):
        assert changed(batch, swapped, row) == [f"{role.words} {min(i, j)}", f"{role.words} {max(i, j)}"]
    at_i, at_j = (batch.at(role, step) for step in (i, j))
    assert torch.equal(swapped.tokens[:, at_i], batch.tokens[:, at_j])
    assert torch.equal(swapped.tokens[:, at_j], batch.tokens[:, at_i])


@pytest.mark.parametrize("name", ["parity-aligned", "parity-gap2", "addition-aligned", "addition-nonaligned"])
def test_steps_may_differ_from_prompt_to_prompt(name):
    batch = sample(name, 3, 5, seed=2)
    i, j = [1, 2, 5], [4, 3, 1]
    swapped = swap_labels(batch, torch.tensor(i), torch.tensor(j), Role.OUTPUT_LABEL)
    flipped = flip_input(batch, torch.tensor(i))
    for row in range(3):
        alone = batch.rows(slice(row, row + 1))
        assert swapped.text(row) == swap_labels(alone, i[row], j[row], Role.OUTPUT_LABEL).text()
        assert flipped.text(row) == flip_input(alone, i[row]).text()
        assert changed(batch, flipped, row) == [f"input {i[row]}"]


@pytest.mark.parametrize(
    ("name", "i", "j", "role", "message"),
    [
        ("parity-aligned", 2, 2, Role.INPUT_LABEL, "labels of steps 2 and 2 are the same token"),
        ("parity-constant", 1, 2, Role.INPUT_LABEL, "steps 1 and 2 are the same token in parity-constant"),
        ("parity-cyclic2", 1, 3, Role.OUTPUT_LABEL, "nothing to swap"),
        ("parity-aligned", 1, 6, Role.INPUT_LABEL, "no input label with step 6; steps run from 1 to 5"),
        ("parity-aligned", 0, 1, Role.OUTPUT_LABEL, "no output label with step 0"),
        ("parity-scratchpad", 1, 2, Role.INPUT_LABEL, "no input label in parity-scratchpad"),
        ("parity-aligned", 1, 2, Role.ANSWER_LABEL, "no answer label in parity-aligned"),
        ("parity-aligned", 1, 2, Role.INPUT, "one of INPUT_LABEL, OUTPUT_LABEL, ANSWER_LABEL; got INPUT"),
        ("parity-aligned", torch.tensor([1, 2]), 3, Role.INPUT_LABEL, r"one number or \[batch\]=3"),
        ("parity-aligned", torch.tensor([1, 2, 3]), 3, Role.INPUT_LABEL, r"per prompt\) and 3 are the same"),
        ("parity-aligned", torch.tensor([1, 2, 6]), 3, Role.INPUT_LABEL, "no input label with step 6"),
    ],
)
def test_a_swap_that_means_nothing_is_refused(name, i, j, role, message):
    with pytest.raises(ValueError, match=message):
        swap_labels(sample(name, 3, 5, seed=0), i, j, role)


@pytest.mark.parametrize("role", LABEL_ROLES)
def test_labels_of_different_operands_are_not_traded(role):
    with pytest.raises(ValueError, match=r"operand 0 has no .* label with step 2"):
        swap_labels(sample("addition-nonaligned", 2, (1, 2), seed=0), 1, 2, role)


@pytest.mark.parametrize("name", [n for n in LABELLED if n != "parity-constant"])
def test_reordering_permutes_the_names_of_input_labels_and_keeps_the_rest(name):
    for length in lengths(name):
        batch = sample(name, 6, length, seed=1)
        inputs = batch.role == Role.INPUT_LABEL
        if len(batch.tokens[0, inputs].unique()) < 2:
            continue
        moved = reorder_labels(batch, seed=7)
        assert torch.equal(moved.tokens[:, ~inputs], batch.tokens[:, ~inputs])
        for old, new in zip(batch.tokens[:, inputs].tolist(), moved.tokens[:, inputs].tolist(), strict=True):
            assert old != new
            names = dict(zip(old, new, strict=True))
            assert [names[token] for token in old] == new  # alike where a label stands twice
            assert sorted(names) == sorted(names.values())


def test_reordering_follows_its_seed_draws_every_order_and_refuses_what_has_none():
    batch = sample("parity-aligned", 600, 3, seed=1)
    once, again = reorder_labels(batch, 7), reorder_labels(batch, 7)
    assert torch.equal(once.tokens, again.tokens)
    at = batch.at(Role.INPUT_LABEL)
    orders = [
        tuple(o.index(t) for t in n)
        for o, n in zip(batch.tokens[:, at].tolist(), once.tokens[:, at].tolist(), strict=True)
    ]
    assert set(orders) == set(permutations(range(3))) - {(0, 1, 2)}
    with pytest.raises(ValueError, match="no two different input labels"):
        reorder_labels(sample("parity-constant", 2, 3, seed=0), 1)
    with pytest.raises(ValueError, match="no input label in parity-scratchpad"):
        reorder_labels(sample("parity-scratchpad", 2, 3, seed=0), 1)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", LABELLED)
def test_renaming_is_one_to_one_within_a_prompt_and_keeps_the_rest(name, held_out):
    pool = set(DEFAULT.held_out if held_out else DEFAULT.labels)
    for length in lengths(name):
        batch = sample(name, 6, length, seed=1)
        renamed = rename_labels(batch, seed=7, held_out=held_out)
        kinds = label_names(batch)
        for row in range(len(batch)):
            pairs = set()
            for pos, (old, new) in enumerate(zip(batch.symbols(row), renamed.symbols(row), strict=True)):
                if batch.name(pos) in kinds:
                    pairs.add((old, new))
                else:
                    assert new == old
            assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
            assert {new for _, new in pairs} <= pool
            if held_out and not name.startswith("recall"):
                assert not {new for _, new in pairs} & set(DEFAULT.labels)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", POOLED)
def test_renamed_prompts_pass_the_oracle(name, held_out):
    for length in lengths(name):
        renamed = rename_labels(sample(name, 4, length, seed=1), seed=7, held_out=held_out)
        for row in range(len(renamed)):
            pool = oracle.HELD_OUT if held_out else oracle.POOL
            assert oracle.complaints(renamed.text(row), name, pool) == []


def test_renaming_follows_its_seed_and_differs_between_prompts():
    batch = sample("parity-aligned", 4, 5, seed=1)
    same = batch.rows(torch.zeros(4, dtype=torch.long))
    once, again, other = (rename_labels(same, seed) for seed in (7, 7, 8))
    assert torch.equal(once.tokens, again.tokens)
    assert not torch.equal(once.tokens, other.tokens)
    assert len(once.tokens.unique(dim=0)) == 4


def test_renaming_keeps_a_swap_a_swap():
    """The edit knows nothing of sides: labels that disagree go on disagreeing."""
    batch = sample("parity-aligned", 4, 5, seed=1)
    both = rename_labels(swap_labels(batch, 1, 4), seed=5)
    assert torch.equal(swap_labels(both, 1, 4).tokens, rename_labels(batch, seed=5).tokens)


def test_a_renaming_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="parity-scratchpad has no labels to rename"):
        rename_labels(sample("parity-scratchpad", 1, 3, seed=0), seed=0)
    batch = sample("parity-aligned", 1, 65, seed=0)
    assert rename_labels(batch, seed=0).tokens.shape == batch.tokens.shape
    with pytest.raises(ValueError, match="has 65 labels and there are only 64 held-out labels"):
        rename_labels(batch, seed=0, held_out=True)


@pytest.mark.parametrize("name", FORMATS)
def test_flip_and_keep_changes_one_token(name):
    for length in lengths(name):
        batch = sample(name, 10, length, seed=3)
        n = length[0] if isinstance(length, tuple) else length
        for step in (1, n):
            flipped = flip_input(batch, step)
            assert all(changed(batch, flipped, row) == [f"input {step}"] for row in range(len(batch)))
            assert torch.equal(flip_input(flipped, step).tokens, batch.tokens) or name[:6] != "parity"


def test_flips_are_literally_these():
    batch = parity_literal("parity-aligned", IN, IN)
    assert flip_input(batch, 2).text() == ">>> M17 0 M4 0 M52 1 === M17 0 M4 1 M52 0"
    assert flip_input(batch, 2, "recompute").text() == ">>> M17 0 M4 0 M52 1 === M17 0 M4 0 M52 1"
    batch = parity_literal("parity-interleaved", (), ())
    assert flip_input(batch, 1).text() == ">>> 1 [0] 1 [1] 1 [0]"
    assert flip_input(batch, 1, "recompute").text() == ">>> 1 [1] 1 [0] 1 [1]"
    batch = addition_literal("addition-none", None)
    assert flip_input(batch, 2).text() == ">>> 2 2 + 9 === 1 2 0 ### 0 2 1"
    assert flip_input(batch, 1, operand=1).text() == ">>> 1 2 + 8 === 1 2 0 ### 0 2 1"
    assert flip_input(batch, 1, "recompute", operand=1).text() == ">>> 1 2 + 8 === 0 2 0 ### 0 2 0"


def number(batch, row, operand):
    """An operand as it is written, from the text alone."""
    words = batch.text(row).split(" ")
    plus, equals = words.index("+"), words.index("===")
    return "".join(w for w in (words[plus:equals] if operand else words[:plus]) if w.isdigit())


@pytest.mark.parametrize("name", ADDITION)
@pytest.mark.parametrize("length", [(3, 3), (4, 2), (2, 4)])
@pytest.mark.parametrize("operand", [0, 1])
def test_a_flipped_digit_is_that_of_its_operand_and_one_away(name, length, operand):
    batch = sample(name, 40, length, seed=4)
    for step in range(1, length[operand] + 1):
        for scratchpad in ("keep", "recompute"):
            flipped = flip_input(batch, step, scratchpad, operand)
            for row in range(len(batch)):
                assert number(flipped, row, 1 - operand) == number(batch, row, 1 - operand)
                old, new = number(batch, row, operand), number(flipped, row, operand)
                d = int(old[-step])
                assert new == old[: len(old) - step] + str(8 if d == 9 else d + 1) + old[len(old) - step + 1 :]


@pytest.mark.parametrize("name", RECOMPUTABLE)
def test_flip_and_recompute_passes_the_oracle_and_changes_no_label(name):
    for length in lengths(name):
        batch = sample(name, 6, length, seed=3)
        n = length[0] if isinstance(length, tuple) else length
        for step in range(1, n + 1):
            flipped = flip_input(batch, step, "recompute")
            for row in range(len(batch)):
                assert oracle.complaints(flipped.text(row), name) == []
                names = changed(batch, flipped, row)
                assert [x for x in names if x.startswith("input")] == [f"input {step}"]
                assert not any("label" in x for x in names)
                if name.startswith("parity"):
                    assert f"output {n}" in names
                    assert not set(names) & {f"output {i}" for i in range(1, step)}


def test_after_a_flip_that_keeps_the_scratchpad_only_that_step_is_wrong():
    """Under teacher forcing parity(i) = bit(i) XOR the written parity(i-1)."""
    flipped = flip_input(sample("parity-aligned", 8, 9, seed=0), 4)
    sides = (Role.INPUT, Role.OUTPUT)
    bits, written = ((flipped.tokens[:, flipped.at(r)] == DEFAULT["1"]).long() for r in sides)
    previous = torch.nn.functional.pad(written, (1, 0))[:, :-1]
    assert ((bits ^ previous) != written).any(dim=0).tolist() == [step == 4 for step in range(1, 10)]


@pytest.mark.parametrize(
    ("name", "length", "arguments", "message"),
    [
        ("parity-aligned", 3, {"step": 4}, "no input with step 4; steps run from 1 to 3"),
        ("parity-aligned", 3, {"step": 0}, "no input with step 0"),
        ("parity-aligned", 3, {"step": 1, "operand": 1}, "operand 1 has no input with step 1"),
        ("addition-none", (2, 3), {"step": 3}, "operand 0 has no input with step 3"),
        ("addition-none", (3, 2), {"step": 3, "operand": 1}, "operand 1 has no input with step 3"),
        ("addition-none", 3, {"step": 1, "operand": 2}, "operand must be 0 or 1; got 2"),
        ("addition-none", 3, {"step": 1, "operand": -1}, "operand must be 0 or 1; got -1"),
        ("addition-none", 3, {"step": 4}, "no input with step 4"),
        ("addition-zeropad", (2, 3), {"step": 3, "scratchpad": "recompute"}, "step 3 of operand 0 is padding"),
        ("parity-aligned", 3, {"step": 1, "scratchpad": "drop"}, "must be 'keep' or 'recompute'; got 'drop'"),
        ("parity-aligned", 3, {"step": torch.tensor([1, 2, 3])}, r"steps must be one number or \[batch\]=2"),
        ("recall-ordered", 3, {"step": 1, "scratchpad": "recompute"}, "outputs of recall cannot be recomputed"),
    ],
)
def test_a_flip_that_means_nothing_is_refused(name, length, arguments, message):
    with pytest.raises(ValueError, match=message):
        flip_input(sample(name, 2, length, seed=0), **arguments)


@pytest.mark.parametrize("keep", ["", "labels", "inputs"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_redraw_passes_the_oracle_and_holds_what_it_should(name, keep):
    if (keep == "inputs" and name not in POOLED) or (keep == "labels" and name.startswith("recall")):
        return
    for length in lengths(name):
        batch = sample(name, 6, length, seed=3)
        fresh = redraw(batch, seed=4, keep=keep)
        assert all(oracle.complaints(fresh.text(row), name) == [] for row in range(len(fresh)))
        labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
        inputs = batch.role == Role.INPUT
        random = parse_format(name).labels == "pool"
        same_labels = torch.equal(fresh.tokens[:, labels], batch.tokens[:, labels])
        assert same_labels == (keep == "labels" or not random)
        assert torch.equal(fresh.tokens[:, inputs], batch.tokens[:, inputs]) == (keep == "inputs")


@given(st.sampled_from(FORMATS), st.integers(1, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_a_redraw_is_of_its_seed(name, seed):
    batch = sample(name, 30, dict(SHORT)[name], seed=0)
    assert torch.equal(redraw(batch, seed).tokens, sample(name, 30, dict(SHORT)[name], seed).tokens)


def test_a_redraw_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="keep must be '', 'labels' or 'inputs'; got 'bits'"):
        redraw(sample("parity-aligned", 1, 3, seed=0), seed=0, keep="bits")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="values of recall go with its labels"):
        redraw(sample("recall-ordered", 1, 3, seed=0), seed=1, keep="labels")
    with pytest.raises(ValueError, match="seed 0 draws the same prompts again"):
        redraw(sample("parity-aligned", 1, 3, seed=0), seed=0)
    with pytest.raises(ValueError, match="are the same in every prompt"):
        redraw(sample("parity-numeric", 1, 3, seed=0), seed=1, keep="inputs")
    with pytest.raises(ValueError, match="no labels to rename"):
        redraw(sample("parity-scratchpad", 1, 3, seed=0), seed=0, keep="inputs")


def test_edits_leave_the_global_random_state_alone():
    batch = sample("parity-aligned", 4, 5, seed=0)
    state = torch.random.get_rng_state()
    rename_labels(batch, seed=0)
    redraw(batch, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
