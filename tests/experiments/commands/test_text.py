"""`mnemoscope patch` and `mnemoscope attention` on text, with a model that has no task."""

import json
from pathlib import Path

import pandas
import pytest
import torch

from experiments import load
from experiments.cli import main
from experiments.commands.patch import PatchCommand
from interp.patching import logit_diff, patch
from interp.tasks.encoding import encode
from interp.tasks.texts import prompts
from tests.small_language_model import SENTENCES, save_small_gpt2, small_gpt2, word_tokenizer

TEXT = ["--clean", SENTENCES[0], "--corrupted", SENTENCES[1]]
ANSWERS = ["--answer", " Mary", "--other", " John"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A random GPT-2 with a tokenizer that knows the sentences."""
    return str(save_small_gpt2(tmp_path_factory.mktemp("models") / "small"))


@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_text_is_patched_as_by_the_library(model, site, capsys):
    assert main(["patch", model, *TEXT, *ANSWERS, "--site", site, "--device", "cpu"]) == 0
    folder = Path("mnemoscope-out/small")
    assert sorted(p.name for p in folder.iterdir()) == [f"patch-{site}.{end}" for end in ("json", "parquet", "svg")]
    run = load(model, device="cpu")
    pair = prompts(run, clean=SENTENCES[0], corrupted=SENTENCES[1])
    effect = patch(run, pair.clean, pair.corrupted, site=site, metric=logit_diff(" Mary", " John"))
    table = pandas.read_parquet(folder / f"patch-{site}.parquet")
    values = torch.tensor(table["value"].tolist(), dtype=torch.float64)
    assert float((values - effect.values.flatten()).abs().max()) <= 1e-5
    assert effect.change.abs().max() > 0
    record = json.loads((folder / f"patch-{site}.json").read_text())
    assert record["format"] is None
    assert (record["provenance"]["device"], record["provenance"]["dtype"]) == ("cpu", "float32")
    assert record["options"]["answer"] == [" Mary"]
    assert "equal the literal loop" in capsys.readouterr().out


def test_each_prompt_can_have_its_own_answer(model):
    """Two pairs, the second of which is the first turned round, so that its answers are too."""
    clean, corrupted = (TEXT[1], TEXT[3]), (TEXT[3], TEXT[1])
    argv = ["patch", model, "--clean", *clean, "--corrupted", *corrupted, "--site", "mlp_out", "--device", "cpu"]
    assert main([*argv, "--answer", " Mary", " John", "--other", " John", " Mary"]) == 0
    run = load(model, device="cpu")
    pair = prompts(run, clean=list(clean), corrupted=list(corrupted))
    metric = logit_diff(answer=[" Mary", " John"], other=[" John", " Mary"])
    expected = patch(run, pair.clean, pair.corrupted, "mlp_out", metric)
    table = pandas.read_parquet("mnemoscope-out/small/patch-mlp_out.parquet")
    values = torch.tensor(table["value"].tolist(), dtype=torch.float64)
    assert float((values - expected.values.flatten()).abs().max()) <= 1e-5


def test_text_on_which_the_model_prefers_the_wrong_answer_is_marked(model):
    """In one of two orders of the answers the clean metric is below the corrupted one."""
    found = []
    for answer, other in ((" Mary", " John"), (" John", " Mary")):
        argv = ["patch", model, *TEXT, "--answer", answer, "--other", other, "--site", "mlp_out", "--device", "cpu"]
        assert main(argv) == 0
        found.append(json.loads(Path("mnemoscope-out/small/patch-mlp_out.json").read_text())["competence"])
    assert sorted(found[k]["valid"] for k in (0, 1)) == [False, True]
    assert "the metric is lower on clean prompts" in next(x["reason"] for x in found if not x["valid"])


@pytest.mark.parametrize("metric", ["probability", "accuracy", "kl"])
def test_metrics_without_another_answer(model, metric):
    answer = [] if metric == "kl" else ["--answer", " Mary"]
    assert main(["patch", model, *TEXT, *answer, "--metric", metric, "--site", "mlp_out", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no task is posed"),
        (["--clean", SENTENCES[0]], "--corrupted is missing"),
        (TEXT, "--metric logit_diff needs --answer"),
        ([*TEXT, "--answer", " Mary"], "--metric logit_diff needs --other"),
        ([*TEXT, *ANSWERS, "--step", "3"], "--step is for tasks"),
        ([*TEXT, *ANSWERS, "--metric", "probability"], "--metric probability does not read --other; leave it out"),
        ([*TEXT, *ANSWERS, "--metric", "accuracy"], "--metric accuracy does not read --other; leave it out"),
        ([*TEXT, "--answer", "x", "--metric", "kl"], "--metric kl does not read --answer; leave it out"),
        ([*TEXT, "--other", "x", "--metric", "kl"], "--metric kl does not read --other; leave it out"),
        ([*TEXT, "--answer", " Mary and", "--other", " John"], "token"),
        ([*TEXT, "--answer", " Mary", " John", "--other", " John"], "or one of these per prompt (1); got 2 of them"),
        ([*TEXT, *ANSWERS, "--positions", "output:3"], "give an index from 0"),
        ([*TEXT, *ANSWERS, "--positions", "99"], "99"),
        ([*TEXT, *ANSWERS, "--device", "tpu"], "device"),
    ],
)
def test_bad_text_is_one_line(model, argv, words, capsys):
    assert main(["patch", model, *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mnemoscope patch: ")
    assert words in line
    assert not list(Path().rglob("*.json"))


@pytest.mark.parametrize("verb", ["patch", "circuit"])
def test_prompts_of_different_token_counts_are_named_in_one_line(verb, model, capsys):
    pairs = [
        ([SENTENCES[0]], ["When Mary"], "got 14 in clean 0, 2 in corrupted 0"),
        ([SENTENCES[0], "When Mary"], [SENTENCES[1], "When John"], "got 14 in clean 0, 2 in clean 1"),
    ]
    for clean, corrupted, counts in pairs:
        assert main([verb, model, "--clean", *clean, "--corrupted", *corrupted, *ANSWERS]) == 2
        line = f"mnemoscope {verb}: prompts must have the same number of tokens; {counts}\n"
        assert capsys.readouterr().err == line


@pytest.mark.parametrize("verb", ["patch", "circuit"])
@pytest.mark.parametrize("texts", [SENTENCES[:1], SENTENCES[:2]], ids=["one", "two"])
def test_pairs_that_are_all_the_same_are_refused_before_the_model_is_run(verb, texts, model, capsys, monkeypatch):
    monkeypatch.setattr("interp.models.run.Run.raw", property(lambda _: pytest.fail("the model was run")))
    assert main([verb, model, "--clean", *texts, "--corrupted", *texts, *ANSWERS]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mnemoscope {verb}: --clean and --corrupted are the same")
    assert not list(Path().iterdir())


def test_other_texts_of_the_same_tokens_are_refused_too(model, monkeypatch):
    """A tokenizer may read two texts as the same."""
    run = load(model, device="cpu")
    monkeypatch.setattr("interp.tasks.texts.encode", lambda own, text, bos: encode(own, text.lower(), bos))
    assert PatchCommand(model, clean=("a b", "a b"), corrupted=("A b", "a d")).text_pair(run)
    with pytest.raises(ValueError, match="--clean and --corrupted are the same"):
        PatchCommand(model, clean=("a b",), corrupted=("A b",)).text_pair(run)


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        (["--answer", "Mary", "--other", "John"], ("--answer 'Mary' and --other 'John' have", "' Mary' and ' John'?")),
        (["--answer", " Mary", "--other", "John"], ("--other 'John' has", "did you mean ' John'?")),
        (ANSWERS, None),
    ],
)
@pytest.mark.parametrize("verb", ["patch", "circuit"])
def test_answers_without_the_space_of_the_next_word_are_named_in_one_line(verb, answers, named, tmp_path, capsys):
    tokenizer = word_tokenizer((*SENTENCES, "Mary\nJohn\nMary\nJohn"))  # with and without a space before them
    model = tmp_path / "both"
    small_gpt2(tokenizer).save_pretrained(model)
    tokenizer.save_pretrained(model)
    quick = ["--site", "mlp_out", "--dry-run"] if verb == "patch" else ["--points", "2"]
    main([verb, str(model), *TEXT, *answers, *quick, "--device", "cpu"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "leading space" in line]
    if named is None:
        assert not lines
    else:
        (line,) = lines
        assert line.startswith(f"warning: {named[0]} no leading space")
        assert line.endswith(named[1])


def test_half_precision_is_recorded(model):
    argv = ["patch", model, *TEXT, *ANSWERS, "--site", "resid_pre", "--dtype", "float64", "--device", "cpu"]
    assert main([*argv, "--out", "double"]) == 0
    record = json.loads(Path("double/patch-resid_pre.json").read_text())
    assert record["provenance"]["dtype"] == "float64"


def test_attention_writes_one_page(model, capsys):
    assert main(["attention", model, "--prompt", "When Mary and John went", "--layers", "1", "2"]) == 0
    page = Path("mnemoscope-out/small/attention.html").read_text()
    assert page.count("<title>") == 1
    assert "CircuitsVis" in page
    assert "2 layers, 5 tokens" in capsys.readouterr().out
    assert main(["attention", "parity-aligned-alibi", "--length", "3", "--out", "task.html"]) == 0
    assert Path("task.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "or give a prompt with --prompt"),
        (["--prompt", "When Mary", "--layers", "9"], "there is no layer 9; layers run from 0 to 2"),
        (["--prompt", "When Mary", "--heads", "9"], "head"),
        (["--prompt", "When Mary", "--out", "x.txt"], "--out must name an HTML file"),
        (["--prompt", ""], ""),
    ],
)
def test_bad_attention_is_one_line(model, argv, words, capsys):
    assert main(["attention", model, *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("verb", "file", "first"), [("patch", "patch-mlp_out.json", "clean"), ("circuit", "circuit.json", "answer")]
)
def test_a_result_on_other_text_is_replaced_in_one_line(model, verb, file, first, capsys):
    quick = ["--site", "mlp_out"] if verb == "patch" else ["--points", "2"]
    # The other order has the answers turned round, so that the clean prompt's is right in both.
    turned = ["--clean", SENTENCES[1], "--corrupted", SENTENCES[0], "--answer", " John", "--other", " Mary"]
    for argv, replaced in (([*TEXT, *ANSWERS], False), ([*TEXT, *ANSWERS], False), (turned, True)):
        assert main([verb, model, *argv, *quick, "--device", "cpu"]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("replacing ")]
        assert len(lines) == replaced
    assert lines[0].startswith(f"replacing {Path('mnemoscope-out', 'small', file)}: it was made with ")
    assert f"{first} " in lines[0]
