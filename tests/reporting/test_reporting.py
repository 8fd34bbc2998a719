"""Every report is one page that needs nothing but itself, whatever the model and the data."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import os
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import tightbound as tb
from tightbound import checkpoint
from tightbound.data import Data, DataOptions, DataSpec
from tightbound.errors import CheckpointError, DataError, UsageError
from tightbound.evaluation import Estimate, Evaluation
from tightbound.evaluation.kept import read_diagnosis, write_diagnosis, write_evaluation
from tightbound.options.training import TrainingOptions
from tightbound.reporting import (
    diagnosis,
    figures,
    headline,
    page,
    reproduction_command,
    surprise,
    tables,
    visuals,
    write_report,
)
from tightbound.reporting.command import changed
from tightbound.reporting.glossary import marked, tips
from tightbound.reporting.maps import flat_views
from tightbound.reporting.material import Material, gather
from tightbound.reporting.quick import Pace, Plan, plan_diagnosis, plan_evaluation
from tightbound.reporting.sheet import sheet
from tightbound.runs import RunConfig, RunFolder

SECTIONS = (
    "Reconstructions",
    "Samples",
    "Latent map",
    "Interpolations",
    "Traversals",
    "Latent dimensions",
    "Single examples",
    "Evaluation",
    "Diagnosis",
    "Training",
    "How to reproduce it",
    "Configuration",
)
FOLDED = ("Latent dimensions", *SECTIONS[7:])
PICTURES = ("Reconstructions", "Samples", "Interpolations", "Traversals")
VOID = {"meta", "img", "br", "link", "hr"}


class _Page(HTMLParser):
    """Reads a page: its headings, images and texts, and whether every element is closed where it must be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.buttons: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "button":
            self.buttons.append(data)
        if "style" not in self.open and "script" not in self.open:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def images(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]


def _run(folder: Path, recipe: tb.recipes.Recipe, data: Data, steps: int = 30) -> Path:
    torch.manual_seed(0)
    options: dict[str, Any] = {"evaluate_every": 10, "log_every": 5, "precision": "32-true", "device": "cpu"}
    tb.train(recipe.build(data.spec), data, out=folder, steps=steps, pictures=False, **options)
    return folder


def _report(run: Path, without: tuple[str, ...] = (), **options: Any) -> _Page:
    parsed = _Page(write_report(run, **{"k": 3, "quick": QUICK} | options).read_text(encoding="utf8"))
    _check_page(parsed, without)
    return parsed


QUICK = 600.0
"""Seconds enough for all examples, so that no test depends on the time that anything takes."""


def _check_page(parsed: _Page, without: tuple[str, ...] = ()) -> None:
    """Whether it is sound, and has every section but those that would be empty."""
    assert parsed.open == []
    assert parsed.headings == [title for title in SECTIONS if title not in without]
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object")
        assert tag != "script" or not attributes
        assert tag != "image" or (attributes["href"] or "").startswith("data:image/")
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/")
        assert tag != "img" or attributes["alt"]
        assert tag != "a" or (attributes["href"] or "").startswith("#")
        assert tag != "td" or attributes["data-label"]
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["popovertarget"] for tag, a in parsed.elements if tag == "button"}
    linked = {(a["href"] or "")[1:] for tag, a in parsed.elements if tag == "a"}
    assert linked | targets <= set(ids)
    assert len(linked) == len(parsed.headings)


@pytest.fixture(scope="module")
def digits() -> Data:
    return tb.load_data("digits")


@pytest.fixture(scope="module")
def few(digits: Data) -> Data:
    """Little of it, for models whose numbers do not matter."""
    return dataclasses.replace(digits, train=digits.train.subset(200), test=digits.test.subset(40))


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory: pytest.TempPathFactory, digits: Data) -> Path:
    recipe = tb.recipes.VAE(latent_dim=4, hidden=(32,))
    return _run(tmp_path_factory.mktemp("runs") / "vae", recipe, digits)


@pytest.fixture(scope="module")
def vae_page(vae_run: Path) -> _Page:
    return _report(vae_run)


# -- the page -------------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_and_it_is_small(vae_run: Path, vae_page: _Page) -> None:
    text = (vae_run / "report.html").read_text(encoding="utf8")
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 3_000_000
    assert len(vae_page.images()) >= 3 + 2 + 1 + 4 + 1 + 12
    assert sum(tag == "svg" for tag, _ in vae_page.elements) >= 3 + 1 + 6


def test_embedded_pictures_can_be_read(vae_page: _Page) -> None:
    for source in vae_page.images():
        kind, data = source.removeprefix("data:image/").split(";base64,")
        content = base64.b64decode(data, validate=True)
        assert kind in ("png", "jpeg", "webp")
        assert min(Image.open(io.BytesIO(content)).size) >= 48


def test_it_says_what_was_measured(vae_run: Path, vae_page: _Page) -> None:
    found = evaluated(vae_run)
    assert found.n == 360
    assert found.nll is not None
    assert f"{found.nll} nats" in vae_page.text
    assert "Evaluated quickly, on 360 test examples" in vae_page.text
    assert not (vae_run / "evaluation.json").exists()
    assert not (vae_run / "diagnosis.json").exists()
    for name in ("independent pixels", "PCA", "probabilistic PCA, dequantised", "ELBO", "bits per dimension"):
        assert name in vae_page.text
    assert "Not a likelihood" not in vae_page.text


def evaluated(run: Path, k: int = 3) -> Evaluation:
    """What a report measures of all test examples, and of no other than that."""
    return tb.evaluate(tb.load(run), tb.load_data("digits").test, k=k)


@pytest.fixture
def copy(vae_run: Path, tmp_path: Path) -> RunFolder:
    """The run with its evaluation, to be changed."""
    folder = RunFolder(Path(shutil.copytree(vae_run, tmp_path / "copy")))
    write_evaluation(folder, evaluated(vae_run), tb.load(vae_run).loaded_weights)
    return folder


def _change_evaluation(folder: RunFolder, **changes: Any) -> None:
    found = json.loads(folder.evaluation.read_text(encoding="utf8"))
    folder.evaluation.write_text(json.dumps({**found, **changes}), encoding="utf8")
    folder.examples.unlink(missing_ok=True)


def _verdict(material: Material) -> str:
    return headline.verdict(material, tables.comparison(material))


NLL = {"nll": {"value": 77.25, "standard_error": 0.5}}


def test_it_shows_an_evaluation_that_is_there(copy: RunFolder) -> None:
    _change_evaluation(copy, **NLL)
    for k in (None, 3):
        said = _verdict(gather(copy.path, k=k))
        assert said.startswith("On 360 test examples the negative log-likelihood is 77.25 ± 0.50 nats")


def measured(material: Material) -> Evaluation:
    assert material.evaluation is not None
    return material.evaluation


def test_it_evaluates_where_other_samples_are_asked_for(copy: RunFolder) -> None:
    _change_evaluation(copy, **NLL)
    before = copy.evaluation.read_bytes()
    material = gather(copy.path, k=2, quick=QUICK)
    assert measured(material).k == 2
    assert "77.25" not in _verdict(material)
    assert copy.evaluation.read_bytes() == before


@pytest.mark.parametrize("changes", [{"n": 50}, {"split": "valid"}, {"notes": [1]}, {"nll": "?"}])
def test_an_evaluation_of_something_else_is_made_anew(copy: RunFolder, changes: dict[str, Any]) -> None:
    _change_evaluation(copy, **{**NLL, **changes})
    material = gather(copy.path, k=3, quick=QUICK)
    assert (measured(material).n, measured(material).split, len(material.test)) == (360, "test", 360)
    assert "77.25" not in _verdict(material)


def test_an_evaluation_of_other_weights_is_not_shown(copy: RunFolder) -> None:
    _change_evaluation(copy, **NLL)
    weights = checkpoint.read(copy.weights)
    checkpoint.write(copy.weights, {name: value * 1.01 for name, value in weights.items()})
    os.utime(copy.evaluation)
    assert "77.25" not in _verdict(gather(copy.path, k=3))


def test_other_data_neither_shows_nor_changes_the_evaluation_of_the_run(copy: RunFolder, few: Data) -> None:
    _change_evaluation(copy, **NLL)
    before = copy.evaluation.read_bytes()
    copy.write_config(dataclasses.replace(copy.config(), fingerprint=tb.load_data("digits").fingerprint))
    parsed = _report(copy.path, data=few)
    assert "On 40 test examples" in parsed.text
    assert "Not the data of this run." in parsed.text
    assert "77.25" not in parsed.text
    assert copy.evaluation.read_bytes() == before
    copy.evaluation.unlink()
    gather(copy.path, few, k=2)
    assert not copy.evaluation.exists()
    assert "Not the data of this run." not in _report(copy.path).text


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Pace:
    """A machine on which a sample of an example takes a hundredth of a second."""
    pace = Pace(call=0.0, row=0.01)
    monkeypatch.setattr("tightbound.reporting.material.measure_pace", lambda model, split: pace)
    return pace


def test_what_is_not_stored_is_measured_quickly_and_not_kept(
    copy: RunFolder, slow: Pace, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.evaluation.unlink()
    material = gather(copy.path, k=3, quick=10.0)  # of which half is for the evaluation: 500 rows, 166 examples
    assert _verdict(material).startswith("On 100 of 360 test examples")
    assert (len(material.measured), len(material.test), len(material.codes)) == (100, 360, 360)
    assert "Evaluated quickly, on 100 of 360 test examples" in headline.cards(material)
    assert "measuring 100 of 360 test examples, about 3 s at most" in capsys.readouterr().err
    assert not copy.evaluation.exists()
    ends = material.data.test.batch(torch.tensor([0, 359])).x
    torch.testing.assert_close(material.measured.batch(torch.tensor([0, 99])).x, ends)


def test_the_plan_keeps_to_the_seconds(copy: RunFolder, slow: Pace) -> None:
    model, test = tb.load(copy.path), tb.load_data("digits").test
    assert plan_evaluation(model, test, None, 1000.0, slow) == Plan(20, 1000.0)  # all that each needs
    assert plan_evaluation(model, test, None, 10.0, slow) == Plan(20, 10.0, k=50)  # fewer samples of each
    assert plan_evaluation(model, test, 10, 10.0, slow) == Plan(100, 10.0, k=10)
    assert plan_evaluation(model, test, 1, 1000.0, slow) == Plan(360, 3.6, k=1)
    assert plan_evaluation(model, test, 10**6, 1.0, slow).examples == 2
    assert plan_diagnosis(model, test, 10.0, slow) is None
    few = plan_diagnosis(model, test.subset(40), 60000.0, slow)
    assert few is not None
    assert (few.examples, few.optimised) == (40, 40)
    found = plan_diagnosis(model, test, 6000.0, slow)
    assert found is not None
    assert (found.examples, found.optimised) == (360, 20)
    assert found.seconds <= 6000


def test_nothing_is_measured_unless_there_is_time(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    for name in ("evaluate", "diagnose"):
        monkeypatch.setattr(f"tightbound.reporting.quick.{name}", refuse)
    stored = _report(copy.path, k=None, quick=0)
    assert "Evaluated on 360 test examples" in stored.text
    copy.evaluation.unlink()
    parsed = _report(copy.path, k=None, quick=0)
    assert f"tightbound evaluate {copy.path}" in parsed.text
    assert f"tightbound diagnose {copy.path}" in parsed.text
    assert "not measured" in parsed.text
    with pytest.raises(UsageError, match="no effect"):
        write_report(copy.path, k=3, quick=0)
    with pytest.raises(UsageError, match="seconds"):
        write_report(copy.path, quick=-1.0)


def test_a_missing_diagnosis_says_both_ways_to_one(
    copy: RunFolder, slow: Pace, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _Page(diagnosis.section(gather(copy.path, quick=1.0))).text
    for text in (shown, capsys.readouterr().err):
        assert f"tightbound diagnose {copy.path}" in text
        assert "--quick SECONDS" in text


def test_a_stored_diagnosis_is_shown_and_another_is_not(copy: RunFolder) -> None:
    model = tb.load(copy.path)
    found = tb.evaluation.diagnose(model, tb.load_data("digits").test, limit=50, gap_examples=2, k=5)
    write_diagnosis(copy, dataclasses.replace(found, cause="made up for this test"), model.loaded_weights)
    assert "made up for this test" in diagnosis.section(gather(copy.path, quick=0))
    assert gather(copy.path, tb.load_data("digits"), k=2).diagnosed is None
    content = json.loads(copy.diagnosis.read_text(encoding="utf8"))
    for damage in ({"kl": None}, {"notes": "a"}, {"n": -1}, {"carrying": [-1]}, {"verdict": 3}):
        copy.diagnosis.write_text(json.dumps({**content, **damage}), encoding="utf8")
        assert read_diagnosis(copy) is None
        assert "Not diagnosed yet" in diagnosis.section(gather(copy.path, quick=0))
    write_diagnosis(copy, found, model.loaded_weights)
    assert read_diagnosis(copy) == found
    weights = checkpoint.read(copy.weights)
    checkpoint.write(copy.weights, {name: value * 1.01 for name, value in weights.items()})
    assert read_diagnosis(copy) is None


# -- its form -------------------------------------------------------------------------------------------------------


def test_pictures_come_first_then_three_numbers_and_numbers_are_folded(vae_run: Path, vae_page: _Page) -> None:
    text = (vae_run / "report.html").read_text(encoding="utf8")
    order = ["<h1>", 'class="verdict"', "<img", 'class="cards"', "<nav", "<h2>"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.index("<img") < len(text) / 20
    assert text.count('class="card"') == 3
    parts = text.split("<section>")[1:]
    assert [part.startswith("<details>") for part in parts] == [title in FOLDED for title in SECTIONS]
    for part in parts:
        summary, content = part.split("</summary>", 1)
        assert ('class="soft"' in summary) == part.startswith("<details>")  # a folded one tells what is in it
        assert content.startswith("<div id=")  # a link leads into what unfolds


def test_the_hero_shows_every_class(copy: RunFolder) -> None:
    material = gather(copy.path)
    labels = material.labels
    assert labels is not None
    assert labels[material.representative(10)].tolist() == list(range(10))
    assert labels[material.representative(12)].tolist() == [*range(10), 0, 1]
    assert len(material.representative(1000)) == 360


def test_words_are_told_once_in_each_section(vae_run: Path, vae_page: _Page) -> None:
    assert {"ELBO", "nats", "KL", "prior", "mean of p(x|z)"} <= set(vae_page.buttons)
    text = (vae_run / "report.html").read_text(encoding="utf8")
    for part in text.split("<section>")[1:]:
        targets = part.split("<script>")[0].split('popovertarget="')[1:]
        terms = [target.split('"')[0] for target in targets]
        assert len(terms) == len(set(terms))


def test_only_text_is_marked() -> None:
    text = '<p title="a KL">a KL, <code>KL</code>, KLs, KL(q), <b>KL</b>, kl and &lt;KL&gt;</p><h3>the prior</h3>'
    found = marked(text)
    assert found.count("<button") == 1
    assert '<p title="a KL">a <span class="whole"><button' in found
    assert re.sub(r"</?(button|span)[^>]*>", "", found) == text
    assert marked("<p>The Prior</p>").count("<button") == 1
    assert tips(marked("<p>a KL</p>")).count("popover") == 1
    assert tips("<p>a KL</p>") == ""
    for names in ("<ul><li>KL</li></ul>", "<figcaption><span>class KL</span></figcaption>"):
        assert marked(names) == names


def test_options_at_their_defaults_are_folded(vae_run: Path, vae_page: _Page) -> None:
    folder, text = RunFolder(vae_run), (vae_run / "report.html").read_text(encoding="utf8")
    shown, rest = text[text.index("<h2>Configuration</h2>") :].split("All options")
    assert vae_run.as_posix() in shown
    assert "button" not in shown + rest.split("</main>")[0]  # no word in a name or a value is told
    for options in (folder.config().recipe, folder.config().training):
        assert options is not None
        for name in vars(options):
            row = f'<th scope="row"><code><span>{name}</span></code></th>'
            way = "given" if name in changed(options) else "default"
            assert re.search(rf"{re.escape(row)}<td [^>]*>[^/]*</span></code></td><td [^>]*>{way}<", rest)
            assert (row in shown) == (name in changed(options))
    assert text.index("<h2>How to reproduce it</h2>") < text.index("<h2>Configuration</h2>")


def test_a_single_example_has_no_error(copy: RunFolder) -> None:
    material = gather(copy.path)
    single = {name: Estimate(1.5, cast(Any, None)) for name in ("nll", "elbo", "reconstruction", "kl", "bits_per_dim")}
    alone = dataclasses.replace(material, evaluation=dataclasses.replace(measured(material), **single))
    rows = [dataclasses.replace(row, squared_error=Estimate(2.0, cast(Any, None))) for row in tables.comparison(alone)]
    assert "log-likelihood is 1.50 nats, 1.500 bits per dimension" in headline.verdict(alone, rows)
    assert "None" not in tables.evaluation(alone) + tables.comparison_table(alone, rows[:1])
    assert "±" not in tables.comparison_table(alone, rows[:1])


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        ("mass", "the negative log-likelihood is 77.25 ± 0.50 nats"),
        ("bound", "the negative log-likelihood is at most 77.25 ± 0.50 nats"),
        ("density", "the log-density is −77.25 ± 0.50 nats"),
        ("none", "the squared error of a reconstruction is"),
    ],
)
def test_the_verdict_says_what_the_number_is(copy: RunFolder, measure: str, says: str) -> None:
    _change_evaluation(copy, **NLL, measure=measure)
    material = gather(copy.path)
    assert says in _verdict(material)
    shown = headline.cards(material)
    assert ("Bits per dimension" in shown) == (measure in ("mass", "bound"))
    assert ("upper bound" in shown) == (measure == "bound")
    assert ("not a likelihood of this data" in shown) == (measure in ("density", "none"))


@pytest.mark.parametrize(
    ("measure", "says"),
    [("mass", "log-likelihood is at most 77.25 nats"), ("density", "the log-density is at least −77.25 nats")],
)
def test_what_is_not_trusted_is_a_bound_without_an_error(copy: RunFolder, measure: str, says: str) -> None:
    _change_evaluation(copy, **NLL, measure=measure, trusted=False, method="auto", proposals={"unreached": 360})
    material = gather(copy.path)
    assert measured(material).proposals == {"unreached": 360}
    assert says in _verdict(material)
    for part in (tables.evaluation(material), tables.comparison_table(material, tables.comparison(material)[:1])):
        assert "≤ 77.25" in part
        assert not re.search(r"77\.25\s±", part)


def test_a_bound_is_marked_once_and_says_what_follows(copy: RunFolder) -> None:
    bits = {"bits_per_dim": {"value": 1.7, "standard_error": 0.1}}
    _change_evaluation(copy, **NLL, **bits, measure="mass", trusted=False)
    material = gather(copy.path)
    rows = tables.comparison(material)
    assert "≤ ≤" not in tables.comparison_table(material, rows)
    verdict = headline.verdict(material, rows)
    assert re.search(r"at most 1.700 bits per dimension, at least \d+\.\d nats better than independent", verdict)
    assert re.search(r"at least \d+\.\d\d\snats below log p\(x\)", headline.cards(material))
    _change_evaluation(copy, nll={"value": 1e4, "standard_error": 0.5})
    assert "independent pixels" not in _verdict(gather(copy.path))


def test_the_evidence_for_trust_is_in_the_table(copy: RunFolder) -> None:
    said = "number of examples by proposal: posterior 3, optimised 357"
    proposals = {"posterior": 3, "optimised": 357}
    shape = {"pareto_k": 0.166, "unreliable": 0.0, "k": 500, "method": "auto", "proposals": proposals}
    _change_evaluation(copy, **shape, trusted=True, notes=["probability", said])
    material = gather(copy.path)
    table = re.sub("<[^>]*>", " ", tables.evaluation(material))
    for row in ("importance samples *500", "Pareto k *0.17", "unreliable *0%", "need better proposals *357 of 360"):
        assert re.search(row, table)
    assert "Notes on these numbers" not in table
    assert headline.warnings(material) == ""


@pytest.mark.parametrize("name", ["evaluation.json", "diagnosis.json", "evaluation.safetensors"])
def test_a_damaged_file_is_told_of(copy: RunFolder, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    gather(copy.path, quick=0)
    assert "damaged" not in capsys.readouterr().err
    (copy.path / name).write_bytes(b"\0junk")
    gather(copy.path, quick=0)
    assert f"note: {name} is damaged" in capsys.readouterr().err


def test_a_model_without_latents_has_no_words_of_them(tmp_path: Path, few: Data) -> None:
    run = _run(tmp_path / "pixels", tb.recipes.PixelCNNRecipe(channels=8, layers=1, kernel=3), few, steps=5)
    m = gather(run, data=few, quick=QUICK).of_the_measured()
    parts = (
        visuals.samples(m),
        surprise.examples(m, surprise.per_example_numbers(m)),
        tables.evaluation(m),
        visuals.curves(m),
    )
    shown = re.sub('(src|xlink:href)="[^"]*"', "", "".join(parts))
    assert "log-likelihood [nats]" in shown
    for word in ("p(x|z)", "reconstruction", "active units", "weight of the KL", "importance samples"):
        assert word not in shown


def test_an_example_of_a_table_is_told_by_its_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(50.0, 2.0, size=(300, 8)).astype(np.float32)
    data = Data.from_arrays(values, name="table")
    run = _run(tmp_path / "table", tb.recipes.VAE(latent_dim=1, hidden=(8,)), data, steps=5)
    material = gather(run, data=data, quick=QUICK, k=2).of_the_measured()
    drawn = surprise.examples(material, surprise.per_example_numbers(material))
    lines = re.findall(r"values ([\d., ]+), …", drawn)
    assert len(lines) == 2 * surprise.SHOWN
    assert all(len(line.split(", ")) == surprise.VALUES for line in lines)
    assert all(35 < float(value) < 65 for line in lines for value in line.split(", "))


def test_device_and_seed_are_the_callers(copy: RunFolder) -> None:
    first, second = (
        [i for i in _report(copy.path, device="cpu", seed=seed).images() if "image/png" in i] for seed in (0, 1)
    )
    assert first != second
    with pytest.raises(UsageError, match="is not available"):
        write_report(copy.path, device="abacus")


def test_damaged_metrics_are_left_out_of_the_curves(copy: RunFolder) -> None:
    text = copy.metrics.read_bytes()
    step = b'{"step": 7, "split": "train", "bound": "a", "kl": [], "objective": true, "lr": NaN, "beta": null}'
    copy.metrics.write_bytes(b"3\n\xff\n" + step + b'\n{"step": "a"}\n' + text)
    assert "Training" in _report(copy.path).headings


def test_the_global_generator_is_left_alone(vae_run: Path, vae_page: _Page) -> None:
    before = torch.random.get_rng_state()
    first = write_report(vae_run, k=3, quick=QUICK).read_text(encoding="utf8")
    assert torch.equal(torch.random.get_rng_state(), before)
    pictures = [i for i in _Page(first).images() if "image/png" in i]
    assert pictures == [i for i in vae_page.images() if "image/png" in i]


# -- other models and data ------------------------------------------------------------------------------------------


def test_an_autoencoder_has_no_samples(tmp_path: Path, few: Data) -> None:
    run = _run(tmp_path / "ae", tb.recipes.Autoencoder(latent_dim=2, hidden=(16,)), few)
    parsed = _report(run, ("Samples",), data=few)
    assert "Not a likelihood of this data." in parsed.text
    assert "the latent space itself" in parsed.text
    assert "squared error of a reconstruction" in parsed.text


def test_a_linear_vae_is_compared_by_density(tmp_path: Path, few: Data) -> None:
    parsed = _report(_run(tmp_path / "linear", tb.recipes.LinearVAE(latent_dim=3), few), data=few)
    assert "Not a likelihood of this data." in parsed.text
    assert "probabilistic PCA, density" in parsed.text
    assert "variance of the posterior" in parsed.text


def test_grey_bernoulli_is_marked(tmp_path: Path, few: Data) -> None:
    recipe = tb.recipes.VAE(latent_dim=2, hidden=(16,), likelihood="bernoulli")
    parsed = _report(_run(tmp_path / "grey", recipe, few), data=few)
    assert "Not a likelihood of this data." in parsed.text
    assert "not a likelihood of that data" in parsed.text
    assert "the model gives no likelihood of this data" in parsed.text
    assert "probabilistic PCA, density" not in parsed.text


def test_vectors_without_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    data = Data.from_arrays(values, name="vectors")
    run = _run(tmp_path / "vectors", tb.recipes.VAE(latent_dim=1, hidden=(32,)), data)
    with pytest.raises(UsageError, match="passed in Python") as caught:
        write_report(run)
    assert "data=Data.from_arrays" in str(caught.value)
    parsed = _report(run, PICTURES, data=data)
    assert "one dimension" in parsed.text
    assert "A density, not a probability" in parsed.text


def test_large_color_pictures_and_hostile_names(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(60, 3, 36, 60)).astype(np.uint8)
    classes = ("$x^", "<script>alert(1)</script>", "日本")
    data = Data.from_arrays(images, labels=np.arange(60) % 3, classes=classes, name='<b a="1">&')
    run = _run(tmp_path / "color", tb.recipes.VAE(latent_dim=3, hidden=(8,), likelihood="gaussian"), data, steps=5)
    parsed = _report(run, data=data)
    assert 'vae on <b a="1">&' in parsed.text
    assert "<script>alert(1)</script>" in parsed.text
    assert any(source.startswith(("data:image/webp", "data:image/jpeg")) for source in parsed.images())


def test_data_that_is_another_kind_is_refused(vae_run: Path) -> None:
    with pytest.raises(UsageError, match="does not fit the run's model") as caught:
        write_report(vae_run, data=tb.load_data("digits", binarize="threshold"))
    assert "17 levels" in str(caught.value)


def test_data_that_moved_can_be_given(tmp_path: Path) -> None:
    old, new = tmp_path / "old.npy", tmp_path / "new.npy"
    np.save(old, np.random.default_rng(0).integers(0, 256, size=(80, 6)).astype(np.uint8))
    data = tb.load_data(old)
    run = _run(tmp_path / "run", tb.recipes.VAE(latent_dim=2, hidden=(8,)), data, steps=3)
    old.rename(new)
    with pytest.raises(DataError, match="--data"):
        write_report(run)
    assert _report(run, PICTURES, data=new).headings


def test_without_metrics_and_without_a_run(vae_run: Path, tmp_path: Path, few: Data) -> None:
    with pytest.raises(CheckpointError, match="no run"):
        write_report(tmp_path / "nothing")
    folder = RunFolder(tmp_path / "copy")
    for name in ("config.json", "model.safetensors"):
        folder.path.mkdir(exist_ok=True)
        (folder.path / name).write_bytes((vae_run / name).read_bytes())
    assert "no metrics.jsonl" in _report(folder.path, data=few).text


# -- the pieces -----------------------------------------------------------------------------------------------------


def test_the_command_gives_the_same_options() -> None:
    recipe = tb.recipes.VAE(latent_dim=3, hidden=(9, 8))
    training = TrainingOptions(steps=7, pictures=False, clip_norm=1.0)
    data = DataOptions("my data", binarize="dynamic", flip=True)
    spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
    words = shlex.split(reproduction_command(RunConfig(spec, training, recipe, data), "runs/x") or "")
    assert words[:7] == ["tightbound", "train", "vae", "--data", "my data", "--out", "runs/x"]
    rest = "--hidden 9 8 --latent-dim 3 --binarize dynamic --flip --steps 7 --clip-norm 1.0 --no-pictures"
    assert words[7:] == rest.split()
    assert reproduction_command(RunConfig(spec, training, None, data), "x") is None
    assert reproduction_command(RunConfig(spec, training, recipe, None), "x") is None
    assert "ema" not in json.dumps(words)
    assert dataclasses.replace(training, ema=0.9) != training


def test_the_command_is_on_the_page(vae_run: Path, vae_page: _Page) -> None:
    config = RunFolder(vae_run).config()
    assert (reproduction_command(config, vae_run.as_posix()) or "-") in vae_page.text


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("Longer: --steps 300.", ["--steps 300"]),
        ("--beta 2 helps; --ema too; or --flip; --dequantize", ["--beta 2", "--ema", "--flip", "--dequantize"]),
        ("--ema takes; --flip", ["--ema", "--flip"]),
        ("--beta 0.5, or --free-bits 0.1 to 1 nats, a 50 % --ema", ["--beta 0.5", "--free-bits 0.1", "--ema"]),
        (
            "Try: tightbound fit-prior RUN --prior pixelcnn --out RUN2.",
            [
                "tightbound fit-prior RUN --prior pixelcnn --out RUN2",
            ],
        ),
        ("tightbound evaluate 'a b' takes more.", ["tightbound evaluate 'a b'"]),
        ("tightbound evaluate RUN --method prior.", ["tightbound evaluate RUN --method prior"]),
    ],
)
def test_a_command_in_a_text_is_code_in_one_piece(text: str, commands: list[str]) -> None:
    shown = page.instructive(text, command="tightbound evaluate 'a b'")
    found = [html.unescape(re.sub("<[^>]*>", "", part)) for part in re.findall("<code>(.*?)</code>", shown)]
    assert found == commands
    assert html.unescape(re.sub("<[^>]*>", "", shown)).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_line_ends_before_an_option_and_not_within_a_number() -> None:
    assert page.code("a b --c-d 1 2 --e").count("<span>") == 3
    assert "<span>--c-d 1 2</span>" in page.code("a b --c-d 1 2 --e")
    assert page.paragraph("1.5 ± 0.5 nats of it") == "<p>1.5\xa0±\xa00.5\xa0nats of it</p>"


def test_everything_is_escaped() -> None:
    hostile = "<img src=http://x onerror='y'>"
    head = page.paragraph(hostile) + page.instructive(hostile) + page.box(hostile, [hostile]) + page.code(hostile)
    parts = (
        page.table([hostile] * 2, [[hostile] * 2]),
        page.legend([("red", "●", hostile)]),
        page.strips([(hostile, "")]),
    )
    text = page.page(hostile, head, [page.Section(hostile, page.folded(hostile, "".join(parts)), summary=hostile)])
    assert "<img" not in text
    assert _Page(text).open == []


def test_words_of_a_figure_are_ink_and_marks_are_coloured() -> None:
    bars = figures.stacked([("KL", [("a", 1.0), ("b", 2.0)])], "nats")
    colors = {str(text.get_color()) for text in bars.axes[0].texts if text.get_text() != "■"}
    assert colors == {str(figures.histogram(np.arange(9.0), "mean 4", "nats").axes[0].title.get_color())}
    assert not colors & {figures.BLUE, figures.ORANGE}


def test_a_few_bars_stand_in_the_middle_and_say_what_they_are() -> None:
    axes = figures.dimension_bars([2.0, 1.0], [True, True], "nats", "position", ["0", "1"]).axes[0]
    assert sum(axes.get_xlim()) == pytest.approx(1.0)
    assert axes.get_xlabel() == "position, sorted"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_first_steps_do_not_squash_a_curve() -> None:
    steps = np.arange(1.0, 101.0)
    values = -90 - 3000 * np.exp(-steps / 4) - 10 * np.exp(-steps / 40)
    limits = figures.settled_limits([("train", steps, values)])
    assert limits is not None
    assert limits[0] > -140
    assert figures.settled_limits([("train", steps, steps)]) is None
    assert figures.settled_limits([("train", steps[:2], values[:2])]) is None
    assert figures.settled_limits([("train", steps, np.full(100, 3.0))]) is None


def test_maps_of_what_cannot_be_mapped() -> None:
    assert flat_views(np.zeros((50, 4)))[0] == []
    assert flat_views(np.ones((50, 1)))[0] == []
    assert len(flat_views(np.random.default_rng(0).normal(size=(5, 3)))[0]) == 1
    assert len(flat_views(np.random.default_rng(0).normal(size=(12, 2)))[0]) == 2


def test_many_classes_have_a_mark_each() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))
    labels = np.arange(200.0) % 37 - 1
    drawn = figures.png(figures.scatter(points, labels, [f"class {i}" for i in range(36)], None))
    assert drawn.startswith(b"\x89PNG")


def test_a_sheet_holds_its_pictures() -> None:
    images = torch.rand(3, 1, 48, 48)
    pixels = np.asarray(sheet(images, columns=2))
    assert pixels.shape == (100, 100, 4)
    np.testing.assert_allclose(pixels[52:, :48, 0], 255 * images[2, 0].numpy(), atol=0.51)
    assert pixels[52:, 52:].max() == 0
    assert sheet(torch.rand(1, 3, 200, 400), columns=1).size == (96, 48)


@pytest.mark.parametrize(
    "recipe",
    [
        tb.recipes.CVAE(latent_dim=2, hidden=(8,)),
        tb.recipes.Completion(latent_dim=2, hidden=(8,)),
        tb.recipes.CompletionBaseline(hidden=(8,)),
        tb.recipes.VQVAE(codes=8, channels=(8,), blocks=0, likelihood="categorical"),
        tb.recipes.GumbelVAE(positions=3, classes=4, hidden=(8,)),
        tb.recipes.PixelCNNRecipe(channels=8, layers=1, kernel=3),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_models_with_conditions_codes_or_no_latent_have_a_report(recipe: Any, tmp_path: Path) -> None:
    data = tb.load_data("digits")
    data = dataclasses.replace(data, test=data.test.subset(40))
    tb.train(recipe.build(data.spec), data, out=tmp_path, steps=3, batch_size=50, pictures=False)
    page = write_report(tmp_path, data=data, k=5).read_text(encoding="utf8")
    assert "<h2>Samples</h2>" in page
    assert ("codes used" in page) == isinstance(recipe, tb.recipes.VQVAE | tb.recipes.GumbelVAE)
    assert ("relaxation gap" in page) == isinstance(recipe, tb.recipes.GumbelVAE)


def test_beside_codes_pca_has_a_component_for_each_position(tmp_path: Path, few: Data) -> None:
    recipe = tb.recipes.GumbelVAE(positions=7, classes=10, hidden=(8,))
    tb.train(recipe.build(few.spec), few, out=tmp_path, steps=3, batch_size=50, pictures=False)
    material = gather(tmp_path, data=few, k=2)
    (pca,) = [row for row in tables.comparison(material) if row.name == "PCA"]
    assert pca.note.startswith("7 components")
    assert "7 positions" in pca.note
    assert pca.squared_error is not None
    assert pca.squared_error.value > 0.1
