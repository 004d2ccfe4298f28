"""`mnemoscope report`: content of the page, sources of its numbers, reuse of results, errors, and a browser."""

import json
import re
import shutil
import time
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments import load
from experiments.cli import main
from experiments.commands.circuit import CircuitCommand
from experiments.commands.report import ReportCommand
from experiments.reporting import computed, reuse, stored
from experiments.reporting.error_text import how_often_wrong
from experiments.reporting.reduced import PROMPTS
from experiments.reporting.section import Picture, SectionData, Source, from_json, to_json
from experiments.support.reading import read_calibration
from experiments.support.results import device_and_dtype, weights_of
from interp.models import save_run
from interp.models.names import SHIPPED
from interp.tasks import default_tokenizer
from interp.views import View
from probes.batteries import DECIDING
from tests.interp.views.pages import Page, hosts_contacted, open_browser

RUN, BARE = "parity-aligned-alibi", "parity-scratchpad-alibi"
SMALL = ["--quick", "--length", "8", "--map-length", "12"]
SECTIONS = ["question", "verdict", "competence", "map", "attention", "patch", "probes", "circuit", "limits"]


class Read(HTMLParser):
    """Collects ids, images, headings and links of a page, outside of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.landmarks: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "a":
            self.links.append(values["href"])
        if tag in ("header", "nav", "main", "footer"):
            self.landmarks.append(tag)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(*argv: str) -> str:
    """Run the command and return the page."""
    assert main(["report", *argv, "--out", "one.html"]) == 0
    return Path("one.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The small report on the default run, with its shipped results."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["report", RUN, *SMALL]) == 0
    return (folder / "mnemoscope-out" / RUN / "report.html").read_text(encoding="utf-8")


def test_the_page_has_every_section_heading_and_link(report):
    page = Read(report)
    assert [name for name in page.ids if not name.endswith("-title")] == SECTIONS
    assert page.links == ["#question", *(f"#{name}" for name in SECTIONS)]
    assert page.landmarks == ["header", "nav", "main", "footer"]
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert max(b - a for a, b in zip(page.headings, page.headings[1:], strict=False)) <= 1
    assert len(page.alts) >= 10
    assert all(alt and len(alt) > 30 for alt in page.alts)


def test_it_is_one_file_without_requests_to_a_host(report):
    assert "default-src 'none'" in report
    outside = re.sub(r"<script.*?</script>", "", report, flags=re.S)
    outside = re.sub(r"src=\"data:[^\"]*\"", "", outside)
    assert not re.search(r"https?://", outside)
    assert not re.search(r"<link|@import|<iframe|url\(", outside)
    assert set(re.findall(r"<(?:img|script)[^>]*\ssrc=\"(\w+:)", report)) == {"data:"}
    bundles = re.findall(r'<script type="text/plain" data-bundle="\d">(.*?)</script>', report, re.S)
    assert len(bundles) == len(set(bundles)) == 5  # maps, two of attention, the table, the circuit
    size = re.findall(r"One file of ([\d.]+) MB", report)
    assert float(size[0]) == pytest.approx(len(report.encode()) / 1e6, abs=0.01)


def test_each_section_names_its_command_and_seed(report):
    for source in (
        "<code>mnemoscope verdict parity-aligned-alibi</code>; seed 0; read from "
        "experiments/runs/parity-aligned-alibi/verdict.json",
        "<code>mnemoscope evaluate ",
        "mnemoscope calibrate ",
        "gradient_x_input(run.raw, run.sample(8, 12, seed=0))",
        "views.attention(capture(run.model, ",
        "<code>mnemoscope patch parity-aligned-alibi --site resid_pre --length 8 --step 4 --corrupt "
        "swap_input_labels --partner 2 --prompts 8 --seed 0</code>; seed 0",
        "views.probes(decode(run.raw, ",
        "<li>circuit: <code>mnemoscope circuit parity-aligned-alibi",
    ):
        assert source in report, source
    assert report.count('<details class="sources"') == 7


def test_the_seed_stands_in_the_caption_of_each_figure_and_that_of_training_in_the_question(report):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", report, re.S)
    assert captions
    assert all(caption.endswith("Prompts drawn with seed 0.") for caption in captions)
    seed = load(RUN).record["recipe"]["seed"]
    assert f"trained on parity of at most 20 bits with seed {seed}." in report


def test_the_commands_that_it_names_are_valid(report):
    command = re.search(r"<code>mnemoscope (patch [^<]* --site z [^<]*)</code>", report.replace("--site", " --site"))
    assert command
    assert main([*command[1].split(), "--dry-run"]) == 0


def test_its_numbers_are_those_of_the_files(report):
    counted, data = read_calibration(), json.loads((SHIPPED / RUN / "verdict.json").read_text(encoding="utf-8"))
    wrong = counted["rates"]["wrong confident label"]
    assert f"<strong>{wrong['hits']} of {wrong['n']}</strong>" in report
    assert f"<strong>{data['verdict']}</strong>" in report
    assert "<strong>Anchor, yes:</strong> when two labels trade places" in report
    assert f"<strong>Remainder: {data['remainder']:.2f}.</strong>" in report
    for name, role in data["roles"].items():
        on = f" on answers, {role['margins']['status']} on margins" if "margins" in role else ""
        assert f"<strong>{name}: {role['status']}{on}.</strong>" in report
    assert escape(data["may_claim"]) in report
    assert escape(data["may_not_claim"]) in report
    rows = json.loads((SHIPPED / RUN / "evaluation.json").read_text(encoding="utf-8"))["accuracy"]
    value = next(r["value"] for r in rows if (r["mode"], r["metric"], r["length"]) == ("written", "step", 60))
    assert f"<td>{value:.3f}</td>" in report


def test_a_verdict_that_no_planted_model_got_has_no_rate_of_its_own():
    counted, data = read_calibration(), json.loads((SHIPPED / RUN / "verdict.json").read_text(encoding="utf-8"))
    label = "mixed(placeholder, sink)"
    assert not any(label in row for row in counted["confusion"].values())
    called = [row.get(data["verdict"], 0) for row in counted["confusion"].values()]
    assert f"Of {sum(called)} planted models" in " ".join(how_often_wrong(data, counted))
    for verdict in (label, "undecided"):
        sentences = " ".join(how_often_wrong(data | {"verdict": verdict}, counted))
        assert verdict in sentences
        assert not re.search(r"Of \d+ planted models", sentences)
    version = counted["margins"]["version"]
    other = data | {"margins": data["margins"] | {"version": "other"}}
    assert f"limits ({version}) than those of the verdict (other)" in " ".join(how_often_wrong(other, counted))


@pytest.mark.parametrize(
    ("section", "what"), [("map", "map"), ("attention", "heads"), ("patch", "patch"), ("probes", "probes")]
)
def test_a_section_that_quick_shortens_says_by_how_much(report, section, what):
    inside = re.search(rf'<section id="{section}".*?</section>', report, re.S)
    assert inside
    usual, few, _ = PROMPTS[what]
    assert f"Left out by --quick: {usual - few} of the {usual} prompts" in inside[0]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The small report on a run without labels, with nothing reused."""
    folder = tmp_path_factory.mktemp("bare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return made(BARE, *SMALL, "--fresh")


def test_without_labels_no_role_is_judged(bare):
    assert "<strong>not-applicable</strong>" in bare
    assert "<strong>anchor:" not in bare or "<strong>anchor: NOT APPLICABLE" in bare
    assert "probes (M8)</" not in bare
    assert "flip_input" in bare
    assert "<code>mnemoscope circuit parity-scratchpad-alibi --seed 0</code>" in bare


@pytest.mark.slow
def test_runs_side_by_side():
    assert main(["report", RUN, BARE, "--compare", *SMALL]) == 0
    text = Path("mnemoscope-out", f"{RUN}+{BARE}", "report.html").read_text(encoding="utf-8")
    assert f"<title>{RUN} and {BARE}, side by side</title>" in text
    assert all(f'<th scope="row"><code>{run}</code></th>' in text for run in (RUN, BARE))
    assert text.count('data-bundle="0">') == 3  # two maps, and their script
    assert f"curves of {RUN}, {BARE}" in text
    assert f"{BARE}, map: Python" in text


@pytest.fixture
def copied(tmp_path):
    """A copy of the default run, with its result files, under its own name."""
    return Path(shutil.copytree(SHIPPED / RUN, tmp_path / RUN))


def change(path: Path, **more) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | more), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "verb", "more", "why"),
    [
        ("verdict.json", "verdict", {"run": "another"}, "it is of another"),
        ("verdict.json", "verdict", {"seed": 3}, "its seed is 3, not 0"),
        ("verdict.json", "verdict", {"provenance": {"command": f"mnemoscope verdict {RUN} --forced"}}, "--forced"),
        ("verdict.json", "verdict", {"prompts": 23}, "it has 23 prompts, fewer than 24"),
        ("verdict.json", "verdict", {"by_length": []}, "its lengths are []"),
        ("evaluation.json", "evaluate", {"prompts": 1}, "it has 1 prompts, fewer than 2"),
        ("verdict.json", "verdict", {"margins": {"version": "older"}}, "margins older"),
        ("verdict.json", "verdict", {"weights": "0123"}, "the weights have changed since"),
        ("evaluation.json", "evaluate", {"format": "parity-cyclic"}, "parity-cyclic"),
        ("evaluation.json", "evaluate", {"accuracy": []}, reuse.UNREAD),
    ],
)
def test_a_result_that_is_not_of_this_run_is_not_reused(copied, name, verb, more, why):
    change(copied / name, **more)
    data, where, reason = reuse.stored_result(load(str(copied)), verb, name, 0)
    assert (data, where) == (None, "")
    assert reason.startswith(f"{RUN}/{name} was not used: ")
    assert why in reason


@pytest.mark.slow
def test_a_result_of_these_weights_is_known_by_their_digest_or_by_repeating_it(copied):
    run = load(str(copied))
    data, where, why = reuse.stored_result(run, "verdict", "verdict.json", 0)
    assert data
    assert (data["verdict"], where, why) == ("anchor", f"{RUN}/verdict.json", "")
    change(copied / "verdict.json", weights=weights_of(run))
    assert reuse.stored_result(run, "verdict", "verdict.json", 0)[1]


@pytest.fixture
def half(tmp_path) -> Path:
    """The default run as bfloat16 weights, without results, in a folder that a shell must have quoted."""
    folder, run = tmp_path / "my runs" / "m", load(RUN, device="cpu", dtype="bfloat16")
    save_run(folder, run.raw, run.tokenizer, {k: v for k, v in run.record.items() if k != "version"})
    return folder


def test_all_parts_have_one_precision_which_the_commands_name(half, monkeypatch):
    class Reached(Exception):
        pass

    verbs: list[CircuitCommand] = []

    def reach(verb: CircuitCommand) -> int:
        verbs.append(verb)
        raise Reached

    monkeypatch.setattr(CircuitCommand, "run", reach)
    cases: tuple[tuple[Any, str], ...] = ((None, "float32"), ("bfloat16", "bfloat16"))
    for asked, precision in cases:
        options = ReportCommand((str(half),), device="cpu", dtype=asked)
        (run,) = options._load()
        assert device_and_dtype(run) == {"device": "cpu", "dtype": precision}
        with pytest.raises(Reached):
            stored.circuit_part(run, options, half, lambda _: None)
        assert (verbs[-1].device, verbs[-1].dtype) == ("cpu", precision)
        assert options.said(run) == f"'{half}' --device cpu --dtype {precision}"
    (run,) = (usual := ReportCommand((RUN,)))._load()
    assert usual.said(run) == RUN


def test_a_result_of_another_precision_is_not_reused_and_the_reason_is_the_precision(copied):
    path, run = copied / "evaluation.json", load(str(copied), device="cpu", dtype="bfloat16")
    made = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    for dtype, why in (
        ("float32", "it was made with dtype float32, not bfloat16"),
        (None, "it is of other weights, or of these before they were cast to bfloat16"),
    ):
        change(path, weights=weights_of(load(str(copied))), provenance=made | {"dtype": dtype})
        assert reuse.stored_result(run, "evaluate", path.name, 0)[2] == f"{RUN}/{path.name} was not used: {why}."
    command = {"command": made["command"] + " --dtype bfloat16 --device cpu"}
    change(path, weights=weights_of(run), provenance=made | command | {"dtype": "bfloat16"})
    data, _, why = reuse.stored_result(run, "evaluate", path.name, 0)
    assert data, why


def test_options_that_change_no_number_leave_a_verdict_of_use(copied):
    made = json.loads((copied / "verdict.json").read_text(encoding="utf-8"))["provenance"]
    made["command"] += " --fresh --evidence"
    options = {"lengths": [20, 40], "prompts": 128}
    change(copied / "verdict.json", provenance=made, options=options)
    data, _, why = reuse.stored_result(load(str(copied)), "verdict", "verdict.json", 0)
    assert data, why


def test_a_smaller_result_beside_weights_is_shown_with_its_size(copied):
    made = json.loads((copied / "verdict.json").read_text(encoding="utf-8"))
    command = {"command": f"mnemoscope verdict {RUN} --lengths 20 --prompts 48"}
    change(copied / "verdict.json", provenance=made["provenance"] | command, prompts=48)
    made["by_length"] = made["by_length"][:1]
    made["evidence"] = [e for e in made["evidence"] if e["length"] == 20]
    change(copied / "verdict.json", by_length=made["by_length"], evidence=made["evidence"])
    run, size = load(str(copied)), "48 prompts, not 128; lengths 20, not 20 40"
    data, where, note = reuse.stored_result(run, "verdict", "verdict.json", 0)
    assert data
    assert note == f"{where} has {size}. `--fresh` measures with the usual numbers."
    part = stored.verdict_part(run, ReportCommand((RUN,)), copied, lambda _: None)
    assert part.notes == (note,)
    assert part.data["fewer"] == {"prompts": (48, 128), "lengths": (1, 2)}

    change(copied / "evaluation.json", prompts=32)
    part = stored.accuracy_part(run, ReportCommand((RUN,)), copied, lambda _: None)
    assert part.notes == (f"{RUN}/evaluation.json has 32 prompts, not 256. `--fresh` measures with the usual numbers.",)

    elsewhere = Path("mnemoscope-out", RUN)  # there the same command may have left it on the way
    elsewhere.mkdir(parents=True)
    for name in ("verdict.json", "evaluation.json"):
        shutil.move(copied / name, elsewhere / name)
    found, _, why = reuse.stored_result(run, "verdict", "verdict.json", 0)
    assert found is None
    assert why == f"{RUN}/verdict.json was not used: it has {size}."


def test_what_ships_with_fine_tuned_weights_needs_no_measuring(copied):
    """Their verdict takes an hour; `load` needs the fetched model, so the small run stands in."""
    run = load(str(copied))
    for name, verb in (("verdict.json", "verdict"), ("evaluation.json", "evaluate")):
        data = json.loads((SHIPPED / "smollm2-parity-aligned" / name).read_text(encoding="utf-8"))
        (copied / name).write_text(json.dumps(data | {"run": RUN, "models": [RUN], "weights": weights_of(run)}))
        found, _, note = reuse.stored_result(run, verb, name, 0)
        assert found, note
        assert note.startswith(f"{RUN}/{name} has ")


def test_results_of_a_sweep_are_reused():
    """A sweep's options select models; each is evaluated with the defaults."""
    run = load("parity-aligned-alibi-seed3")
    data, _, why = reuse.stored_result(run, "evaluate", "evaluation.json", 0)
    assert data, why
    assert "sweep" in data["provenance"]["command"]


@pytest.mark.slow
def test_results_of_weights_that_changed_are_refused(copied):
    run = load(str(copied))
    dict(run.raw.named_parameters())["transformer.h.1.self_attention.query_key_value.weight"].data.mul_(0.2)
    for file in copied.glob("*.safetensors"):
        file.unlink()
    other = copied.parent / "changed" / RUN
    save_run(other, run.raw, default_tokenizer(), {k: v for k, v in run.record.items() if k != "version"})
    for name in ("verdict.json", "evaluation.json"):
        shutil.copy(SHIPPED / RUN / name, other / name)
    for verb, name in (("verdict", "verdict.json"), ("evaluate", "evaluation.json")):
        data, _, why = reuse.stored_result(load(str(other)), verb, name, 0)
        assert data is None
        assert "the weights have changed" in why


@pytest.mark.slow
def test_it_resumes_from_the_parts_on_disk(monkeypatch):
    calls: list[str] = []
    mapped, probed = computed.map_part, computed.probe_part

    def count(name, work):
        def call(*args):
            calls.append(name)
            if name == "probes" and calls.count(name) == 1:
                raise KeyboardInterrupt
            return work(*args)

        return call

    monkeypatch.setattr(computed, "map_part", count("map", mapped))
    monkeypatch.setattr(computed, "probe_part", count("probes", probed))
    argv = ["report", RUN, *SMALL]
    assert main(argv) == 130
    work = list(Path("mnemoscope-out", RUN).glob(".report-*"))
    assert len(work) == 1
    assert {"verdict.json", "accuracy.json", "map.json", "patch.json"} <= {p.name for p in work[0].iterdir()}
    assert main(argv) == 0
    assert calls == ["map", "probes", "probes"]
    assert [p.name for p in Path("mnemoscope-out", RUN).iterdir()] == ["report.html"]


def test_a_part_is_read_as_it_was_written():
    view = View(
        "a dot", "a dot", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "<b>live</b>", "let x;", narrow=b"<svg/>"
    )
    part = SectionData({"a": 1}, (Picture(view, "look"),), (Source("map", "code", 3, "now", True),), ("note",))
    again = from_json(json.loads(json.dumps(to_json(part))))
    assert (again.data, again.sources, again.notes) == (part.data, part.sources, part.notes)
    same = again.pictures[0].view
    assert (same.still, same.live, same.bundle, same.narrow) == (view.still, view.live, view.bundle, view.narrow)


@pytest.mark.slow
def test_what_is_missing_is_computed(copied):
    for name in ("verdict.json", "evaluation.json"):
        (copied / name).unlink()
    text = made(str(copied), *SMALL)
    assert f"--arms {' '.join(DECIDING)}</code>; seed 0; computed for this report" in text
    assert "Left out by --quick" in text


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["parity-aligned-alibj"], "nearest: parity-aligned-alibi"),
        ([RUN, "--compare"], "name another"),
        ([RUN, RUN, "--compare"], "same name cannot be told apart"),
        ([RUN, BARE, "--out", "x.html"], "--out is for one report"),
        ([RUN, "--out", "x.txt"], "--out must name an HTML file"),
        ([RUN, "--out", "."], "--out must be a file; '.' is a folder"),
        ([RUN, "--length", "0"], "--length must be at least 1"),
        ([RUN, "--length", "129"], "needs 129 different labels"),
        ([RUN, "--map-length", "100000"], "length 100000"),
        ([RUN, "--seed", "-1"], "seed must be an integer"),
    ],
)
def test_bad_input_is_one_line_and_status_2(argv, reason, capsys):
    assert main(["report", *argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("mnemoscope report: ")
    assert reason in lines[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def drawn(browser, path: Path, html: str, **more) -> Page:
    """The page with every view drawn."""
    page = Page(browser, path, html, **more)
    end = time.monotonic() + 60
    waiting = "document.querySelectorAll('.mnemo-view > template').length"
    unready = "[...document.querySelectorAll('[data-ready]')].some(v => v.dataset.ready !== 'true')"
    while page.js(f"return {waiting} || {unready}"):
        assert time.monotonic() < end, "not every view was drawn"
        time.sleep(0.1)
    return page


# Number of different colours of a canvas, or of shapes of a picture.
INK = """
const ink = (canvas) => {
  const pen = Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height})
    .getContext('2d', {willReadFrequently: true});
  pen.drawImage(canvas, 0, 0);
  return new Set(new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
};
return [...document.querySelectorAll('.live')].map((view) => {
  const canvases = [...view.querySelectorAll('canvas')].filter((c) => c.width > 20).map(ink);
  const shapes = view.querySelectorAll('svg path, td, .colored-tokens span').length;
  return canvases.length ? Math.max(...canvases) : shapes;
});
"""


# What scrolls sideways, by class and width.
SCROLLERS = """
return [...document.querySelectorAll('body *')].filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map((e) => `${e.className} ${e.scrollWidth}`);
"""


def test_every_view_is_drawn_without_requests_or_console_errors(browser, report, tmp_path):
    page = drawn(browser, tmp_path / "r.html", report)
    kinds = page.js("return [...document.querySelectorAll('[data-ready]')].map(v => v.className)")
    assert {"mnemo-grid", "mnemo-attention", "mnemo-table", "mnemo-circuit-view"} <= {k.split()[0] for k in kinds}
    assert len(kinds) == report.count("<template>")
    ink = page.js(INK)
    assert len(ink) == len(kinds)
    assert min(ink) > 5, ink
    assert page.js("return [...document.images].every((i) => i.naturalWidth > 0)")
    hidden = page.js("return [...document.querySelectorAll('.drawn > .mnemo-still')].every((s) => s.hidden)")
    assert hidden
    assert page.quiet()


@pytest.mark.slow
def test_the_browser_asks_for_no_host_because_of_the_page(report, tmp_path):
    """Beyond the hosts that it asks for by itself, with a blank page."""
    own, hosts = hosts_contacted("about:blank", tmp_path / "blank"), {}
    for name, html in (("report", report), ("image", "<img src='http://host.example/x'>")):
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        hosts[name] = hosts_contacted((tmp_path / f"{name}.html").as_uri(), tmp_path / name) - own
    assert hosts == {"report": set(), "image": {"host.example"}}


def test_a_spreadsheet_shows_the_cells_of_the_page_as_text(report):
    """Excel opens HTML, and would compute a name such as `=1+1`."""
    assert ':is(th, td) { mso-number-format: "\\@"; }' in report


def test_the_first_view_is_there_at_once(browser, report, tmp_path):
    page = Page(browser, tmp_path / "r.html", report)
    assert page.seconds < 5
    end = time.monotonic() + 5
    paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    while page.js(paint) is None:
        assert time.monotonic() < end, "nothing was painted"
        time.sleep(0.05)
    assert page.js(paint) < 3000
    assert page.js("return document.images[0].complete")


def test_heads_tokens_and_circuit_nodes_respond_to_clicks(browser, report, tmp_path):
    page = drawn(browser, tmp_path / "r.html", report)
    whole = "[...document.querySelectorAll('.mnemo-attention')].find(v => v.querySelectorAll('button.head').length > 9)"
    said = f"return {whole}.querySelector('.said').textContent"
    before = page.js(said)
    page.js(f"{whole}.querySelectorAll('button.head')[12].click()")
    head = page.js(said)
    assert head.startswith("Layer 1, head 4")
    page.js(f"{whole}.querySelectorAll('button.token')[20].click()")
    assert len({before, head, page.js(said)}) == 3
    node = "document.querySelector('.mnemo-circuit-view g.node')"
    page.js(f"{node}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert page.js(f"return {node}.getAttribute('aria-pressed')") == "true"
    assert "edges" in page.text(".mnemo-circuit-view .said")
    assert page.quiet()


@pytest.mark.parametrize("dark", [False, True])
def test_at_390_pixels_nothing_overflows_and_text_has_contrast(browser, report, tmp_path, dark):
    page = drawn(browser, tmp_path / "r.html", report, wide=390, dark=dark)
    assert page.js("return document.documentElement.scrollWidth") <= 390
    chosen = "return [...document.querySelectorAll('picture img')].map(i => i.currentSrc !== i.src)"
    assert page.js(chosen)
    assert all(page.js(chosen)), "figures of several panels stack them on a phone"
    cells = "[...document.querySelectorAll('td, th')].filter(c => c.offsetParent)"
    assert page.js(f"return Math.max(...{cells}.map(c => c.getBoundingClientRect().right))") <= 390
    assert page.js(SCROLLERS) == [], "nothing is out of sight"
    contrast = page.js("""
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((x) => x / 255)
          .map((x) => (x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4));
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll('main > section > :is(p, h2, h3), figcaption, a, summary, li, td')]
        .filter((e) => e.offsetParent && !e.closest('.mount')).map((e) => {
        const ink = light(getComputedStyle(e).color);
        return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
      });
    """)
    assert min(contrast) > 4.5
    ground = page.js("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")


def test_at_1200_pixels_nothing_scrolls_sideways(browser, report, tmp_path):
    page = drawn(browser, tmp_path / "r.html", report, wide=1200)
    assert page.js("return document.documentElement.scrollWidth") <= 1200
    assert page.js(SCROLLERS) == [], "a circuit that is little wider than its frame is fitted to it"


def test_printing_shows_the_still_pictures(browser, report, tmp_path):
    page = drawn(browser, tmp_path / "r.html", report)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = page.js("return [...document.querySelectorAll('.drawn > .mnemo-still')].map(s => s.offsetHeight > 50)")
        assert shown
        assert all(shown)
        assert page.js("return [...document.querySelectorAll('.live')].every(v => v.offsetHeight === 0)")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_first_tab_skips_to_the_report(browser, report, tmp_path):
    from selenium.webdriver.common.keys import Keys  # pyright: ignore[reportMissingImports]

    page = drawn(browser, tmp_path / "r.html", report)
    page.one("body").send_keys(Keys.TAB)
    assert page.js("return document.activeElement.textContent") == "Skip to the report"
    assert page.js("return document.activeElement.getBoundingClientRect().left") >= 0
