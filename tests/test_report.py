"""The report page: what it says of a run in any state, that its HTML is whole and safe, and that a browser shows it."""

import importlib
import json
import math
import os
import re
import shutil
import struct
import subprocess
import warnings
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny
import torch

import pygan
from pygan import cli, commands, report
from pygan.film import film
from pygan.folder import RunFolder
from pygan.pictures import save_png
from pygan.record import Record, read_record
from pygan.report import live
from pygan.train import _Play

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
_differences = importlib.import_module("pygan.report.page")._differences

EVIL = "<b>&'\""  # as the name of a run
VOID = {"meta", "img", "br", "link", "path", "use"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """The elements of a page; its end tags must be those of its start tags."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A short run on digits with a changed setting, and a name that is no HTML."""
    folder = tmp_path_factory.mktemp("report") / EVIL
    settings = {"epochs": 4, "evaluate_every": 1, "samples_every": 1, "batch_size": 500, "evaluation_samples": 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pygan.train("digits", "digits", folder, progress=False, generator_lr=0.01, **settings)


def page_of(*runs, path):
    return Page(report.write(runs, path / "page.html").read_text())


def test_the_page_is_whole_safe_and_refers_to_nothing_outside(digits, tmp_path):
    text = report.write([digits.path, digits], tmp_path / "page.html").read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "form", "b"}
    assert "&lt;b&gt;&amp;&#39;&#34;" in text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "xlink:href", "src"):
            target = attributes.get(name, "data:")
            assert target.startswith("data:image/") or target.removeprefix("#") in ids or name not in attributes
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/(1999/xlink|2000/svg)\")", text)
    assert page.all("html") == [{"lang": "en"}]
    assert [m["content"] for m in page.all("meta") if m.get("name") == "viewport"] == [
        "width=device-width, initial-scale=1"
    ]


def test_pictures_have_words_and_the_keyboard_goes_in_the_order_of_the_page(digits, tmp_path):
    page = page_of(digits.path, path=tmp_path)
    pictures = page.all("img")
    assert len(pictures) == 4  # samples, film, neighbours, interpolation
    assert all(picture["alt"] and int(picture["width"]) > 50 and int(picture["height"]) > 50 for picture in pictures)
    charts = [figure for figure in page.all("figure") if figure.get("role") == "img"]
    assert len(charts) == len(page.all("svg")) == 6
    assert all(re.search(r"-?\d", chart["aria-label"]) for chart in charts)
    assert {attributes["tabindex"] for _, attributes in page.elements if "tabindex" in attributes} == {"0"}
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels == [1, *[2] * 8]


def test_the_page_says_what_the_run_says(digits, tmp_path):
    text = page_of(digits.path, path=tmp_path).text
    result = RunFolder(digits.path).read_result()
    assert f"{result['log_likelihood']:.1f} \u00b1 {result['standard_error']:.1f} nats" in text
    for score in result["reference_log_likelihood"].values():
        assert f"{score:.1f} nats" in text
    assert result["versions"]["torch"] in text
    assert result["hardware"] in text
    assert "scikit-learn's 1,797 handwritten digits" in text
    assert "Not finished" not in text


def test_settings_that_differ_from_the_recipe_are_named_and_no_others(digits):
    rows = dict(_differences([read_record(digits.path)]))
    assert rows["generator_lr"] == ["0.01 (0.002)"]
    assert rows["epochs"] == ["4 (200)"]
    assert set(rows) == {
        "generator_lr",
        "epochs",
        "evaluate_every",
        "samples_every",
        "batch_size",
        "evaluation_samples",
    }


def test_settings_that_the_recipe_does_not_have_differ_too(tmp_path):
    tiny.run(tmp_path / "adam", optimizer="adam", adam_beta1=0.9)
    rows = dict(_differences([read_record(tmp_path / "adam")]))
    assert rows["optimizer"] == ["adam (momentum)"]
    assert rows["adam_beta1"] == ["0.9"]
    tiny.run(tmp_path / "decay", lr_decay=1.0)
    assert dict(_differences([read_record(tmp_path / "decay")]))["lr_decay"] == ["1 (1.000004)"]


def test_the_last_weights_make_up_for_the_best_that_are_damaged(tmp_path):
    run = tiny.run(tmp_path / "run")
    best = RunFolder(run.path).checkpoint_path("best")
    best.write_bytes(best.read_bytes()[:-1] + b"\xff")
    with pytest.warns(UserWarning, match="'last' is used in its place"):
        page = page_of(run.path, path=tmp_path)
    assert "of the last checkpoint" in page.text
    assert "damaged" not in page.text
    RunFolder(run.path).checkpoint_path("last").rename(best)
    best.write_bytes(best.read_bytes()[:-1] + b"\xff")
    assert "damaged" in page_of(run.path, path=tmp_path).text


def test_one_run_needs_no_list(tmp_path):
    run = tiny.run(tmp_path / "run")
    for one in (run, run.path, str(run.path)):
        assert "Settings" in pygan.report.write(one, tmp_path / "page.html").read_text()
        assert pygan.figures.draw_curves(one).axes


def test_a_run_that_is_not_finished_says_how_far_it_is(tmp_path):
    run = tiny.run(tmp_path / "run", epochs=3, evaluate_every=5, samples_every=1)
    folder = RunFolder(run.path)
    folder.write_result(None)
    folder.checkpoint_path("best").unlink()
    folder.write_log([{**entry, "log_likelihood": None} for entry in folder.read_log()[:2]])
    page = page_of(run.path, path=tmp_path)
    assert "Not finished: 2 of 3 epochs. It has not been evaluated yet." in page.text
    assert "of the last checkpoint" in page.text
    assert "the data of" in page.text, "its data were only in memory"
    folder.checkpoint_path("last").unlink()
    folder.write_log([])
    page = page_of(run.path, path=tmp_path)
    assert "Not finished: 0 of 3 epochs" in page.text
    assert "No epoch has been completed yet." in page.text
    assert "has no checkpoint 'last' yet" in page.text
    assert "after epoch 3" in page.text, "the last picture stands for the samples"


def _huge(path):
    """A PNG file whose header says 20000x20000 pixels."""
    Image.new("L", (2, 2)).save(path, format="PNG")
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + path.read_bytes()[24:29]
    path.write_bytes(path.read_bytes()[:12] + header + struct.pack(">I", zlib.crc32(header)) + path.read_bytes()[33:])


def _cut(path):
    save_png(path, torch.rand(9, 1, 64, 64))
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b""), "it is no picture"),
        (_huge, "Image size (400000000 pixels) exceeds limit"),
        (_cut, "image file is truncated"),
        (Path.mkdir, "not a regular file"),
    ],
    ids=["empty", "huge", "cut", "folder"],
)
def test_a_picture_that_cannot_be_read_is_named_on_the_page(tmp_path, spoil, said):
    run = tiny.run(tmp_path / "run", samples_every=1)
    folder = RunFolder(run.path)
    for name in ("best", "last"):
        folder.checkpoint_path(name).unlink()
    folder.samples(2).unlink()
    spoil(folder.samples(2))
    page = page_of(run.path, path=tmp_path)
    sentence = f"{folder.samples(2)} is malformed or damaged: {said}"
    assert page.text.count(sentence) == 2, "in place of the samples and of the film"
    assert page.all("img") == []


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return RunFolder(tiny.run(tmp_path_factory.mktemp("short") / "run", samples_every=1).path)


def _refusals(folder, capsys, *kinds):
    for kind in kinds:
        assert cli.main([*kind, str(folder.path), "-o", str(folder.path / "x")]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        yield said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epoch", 0, "epoch must be at least 1, got 0"),
        ("epoch", 10**400, "epoch must be a number in -1e+300..1e+300, got 1000"),
        ("update", -(10**400), "update must be a number in -1e+300..1e+300, got -1000"),
        ("d_loss", math.nan, "d_loss must be a number in -1e+300..1e+300, got nan"),
        ("d_real", None, "d_real must be of type float, got None"),
        ("log_likelihood", "x", "log_likelihood must be a number in -1e+300..1e+300, got 'x'"),
        ("spread", [1], "spread must be a number in -1e+300..1e+300, got [1]"),
        ("mine", "x", "mine must be a number in -1e+300..1e+300, got 'x'"),
        ("mine", True, "mine must be a number in -1e+300..1e+300, got True"),
    ],
)
def test_a_damaged_log_is_named(short, tmp_path, capsys, name, value, said):
    folder = RunFolder(shutil.copytree(short.path, tmp_path / "run"))
    log = [{**entry, name: value} for entry in folder.read_log()]
    (folder.path / "log.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in log))
    for refusal in _refusals(folder, capsys, ["report"], ["figure", "curve"]):
        assert refusal.startswith(f"pygan: error: {folder.path / 'log.jsonl'} is malformed or damaged: {said}")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("log_likelihood", "x", "log_likelihood must be a number in -1e+300..1e+300, got 'x'"),
        ("standard_error", [], "standard_error must be a number in -1e+300..1e+300, got []"),
        ("seconds", "x", "seconds must be a number in -1e+300..1e+300, got 'x'"),
        ("seconds", -1, "seconds must be at least 0, got -1"),
        ("sigma", math.inf, "sigma must be a number in -1e+300..1e+300, got inf"),
        ("spread", 10**400, "spread must be a number in -1e+300..1e+300, got 1000"),
        (
            "reference_log_likelihood",
            "x",
            "reference_log_likelihood must be a number in -1e+300..1e+300, got 'x'",
        ),
        (
            "reference_log_likelihood",
            {"copies": 10**400},
            "copies must be a number in -1e+300..1e+300, got 1000",
        ),
    ],
)
def test_a_damaged_result_is_named(short, tmp_path, capsys, name, value, said):
    folder = RunFolder(shutil.copytree(short.path, tmp_path / "run"))
    (folder.path / "result.json").write_text(json.dumps({**folder.read_result(), name: value}))
    for refusal in _refusals(folder, capsys, ["report"], ["figure", "curve"]):
        assert refusal.startswith(f"pygan: error: {folder.path / 'result.json'} is malformed or damaged: {said}")


@pytest.mark.parametrize("score", [1e300, -1e300, 0])
def test_a_log_of_extreme_numbers_is_drawn(short, tmp_path, score):
    folder = RunFolder(shutil.copytree(short.path, tmp_path / "run"))
    first, last = folder.read_log()
    folder.write_log([{**first, "g_loss": -score}, {**last, "g_loss": score, "epoch": 2**60}])
    assert "<svg" in report.write([folder.path], tmp_path / "page.html").read_text()


def test_names_of_runs_are_text_in_charts(short, tmp_path):
    names = ["plain", "#123456", 'href="#z', 'id="z', "url(#z", "font-family: z; "]
    page = page_of(*(shutil.copytree(short.path, tmp_path / name) for name in names), path=tmp_path)
    assert {name: page.words.count(name) for name in names} == dict.fromkeys(names, page.words.count("plain"))
    assert page.words.count("plain") > len(page.all("svg")), "its name is in the charts"


def test_warnings_are_there_with_their_advice(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = tiny.run(tmp_path / "run", generator_lr=1e4, discriminator_lr=1e4, epochs=1)
    page = page_of(run, path=tmp_path)
    assert "Epoch 1 the losses diverge" in page.text
    assert "Lower both learning rates" in page.text


@pytest.mark.parametrize("recipe", ["paper2014", "wgan", "wgan_gp"])
def test_the_warnings_of_a_long_run_are_found_in_one_pass(tmp_path, recipe):
    reads = [0]

    class Entry(dict):
        def get(self, name):
            reads[0] += 1
            return super().get(name)

        def __getitem__(self, name):
            reads[0] += 1
            return super().__getitem__(name)

    healthy = {"d_loss": 1.0, "g_loss": 1.0, "d_real": 0.6, "d_fake": 0.4, "distance": 1.0, "spread": 0.9}
    history = [Entry(healthy, epoch=n, update=100 * n) for n in range(1, 1001)]
    history[700]["spread"] = 0.05
    record = Record(tmp_path, pygan.RECIPES[recipe], 0, 1, {}, history, None)
    ((epoch, sentence),) = record.warnings()
    assert epoch == 701
    assert "and did 0.90 times" in sentence
    assert reads[0] < 20 * len(history)


@pytest.mark.parametrize("name", ["x.png", ".", "", "..", "folder/", "folder.html", "x.html.gz"])
def test_a_name_that_is_no_page_is_refused_before_anything_is_drawn(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(report, "write", lambda *_: pytest.fail("it is drawn"))
    assert cli.main(["report", "run", "-o", name]) == 2
    expected = f"argument -o/--output: expected the name of a file that ends in .html, got {name!r}"
    assert capsys.readouterr().err == f"pygan report: error: {expected} (see pygan report --help)\n"


@pytest.mark.parametrize("name", ["x.HTML", "x.htm", "x", "new/x.html"])
def test_names_of_pages(name):
    assert commands.report.parser().parse(["run", "-o", name]).output == Path(name)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty"), "-o", str(tmp_path / "x.html")]) == 1
    assert "empty holds no run" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
    with pytest.raises(ValueError, match="write: runs must hold at least one run, got none"):
        report.write([], tmp_path / "x.html")


def test_a_run_leaves_its_curves_its_film_and_its_page(tmp_path, reports, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [
        "--generator-hidden",
        "8",
        "--discriminator-hidden",
        "8",
        "--evaluation-samples",
        "50",
        "--batch-size",
        "500",
    ]
    assert cli.main(["train", "--epochs", "4", "--samples-every", "1", *small]) == 0
    assert capsys.readouterr().out.endswith("\nruns/digits/report.html\n")
    for name, start in {"curves.png": b"\x89PNG", "curves.svg": b"<?xml", "samples.gif": b"GIF89a"}.items():
        assert (tmp_path / "runs/digits" / name).read_bytes().startswith(start)
    page = Page((tmp_path / "runs/digits/report.html").read_text())
    assert "of the best epoch, 4" in page.text
    assert cli.main(["train", "--epochs", "1", "--no-report", "--out", "bare", *small]) == 0
    assert not (tmp_path / "bare" / "report.html").exists()


def test_what_is_drawn_in_training_changes_no_bit_and_is_seldom(tmp_path, monkeypatch):
    """The generator draws random numbers even in eval mode; a page after each evaluation, and none in a short run."""

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 16)

        def forward(self, noise):
            return torch.sigmoid(self.layer(noise) + 0.1 * torch.randn(len(noise), 16))

    written = []
    monkeypatch.setattr(live, "_SHORT", 0.0)
    monkeypatch.setattr(live, "_SHARE", 1e9)
    monkeypatch.setattr(
        live, "_files", lambda run, weights: {"": lambda: written.append((weights, run.sample(3).sum()))}
    )
    torch.manual_seed(0)
    start = Noisy().state_dict()
    histories = []
    for name, shown in (("shown", True), ("hidden", False)):
        generator = Noisy()
        generator.load_state_dict(start)
        run = tiny.run(tmp_path / name, generator=generator, epochs=3, evaluate_every=1, report=shown)
        histories.append(run.history)
    assert histories[0] == histories[1]
    assert [weights for weights, _ in written][:3] == ["after epoch 1", "after epoch 2", "after epoch 3"]
    assert written[3][0].startswith("of the best epoch, ")
    written.clear()
    monkeypatch.setattr(live, "_SHARE", 0.0)
    monkeypatch.setattr(live, "_SHORT", 0.3)
    tiny.run(tmp_path / "short", evaluate_every=1)
    assert len(written) == 1


def test_a_page_that_cannot_be_drawn_ends_no_training(tmp_path, monkeypatch):
    def fail():
        raise OSError("the disk is full")

    monkeypatch.setattr(live, "_files", lambda run, weights: {"curves.png": fail, "report.html": fail})
    monkeypatch.setattr(live, "_SHORT", 0.0)
    monkeypatch.setattr(live, "_SHARE", 1e9)
    with pytest.warns(UserWarning, match="could not be drawn: OSError: the disk is full") as found:
        run = tiny.run(tmp_path / "run", evaluate_every=1)
    named = [str(warning.message).split(" could not")[0] for warning in found if "drawn" in str(warning.message)]
    assert named == [str(run.path / "curves.png"), str(run.path / "report.html")]
    assert (run.path / "result.json").exists()


def test_a_file_that_cannot_be_written_leaves_out_no_other(tmp_path, reports):
    run = tiny.run(tmp_path / "run", samples_every=1, report=False)
    (run.path / "curves.png").mkdir()
    with pytest.warns(UserWarning, match=r"run/curves\.png could not be drawn: IsADirectoryError"):
        tiny.run(run.path, samples_every=1, resume=True)
    assert all((run.path / name).is_file() for name in REPORT if name != "curves.png")


REPORT = ("report.html", "curves.png", "curves.svg", "samples.gif")


def test_a_run_killed_before_its_last_report_gets_it_when_resumed(tmp_path, reports, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(live.Live, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tmp_path / "run", samples_every=1)
    files = [tmp_path / "run" / name for name in REPORT]
    assert not any(file.exists() for file in files)
    assert (tmp_path / "run/result.json").exists()
    tiny.run(tmp_path / "run", samples_every=1, resume=True)
    drawn = [file.stat().st_ino for file in files]
    assert "Not finished" not in files[0].read_text()
    tiny.run(tmp_path / "run", samples_every=1, resume=True)
    assert [file.stat().st_ino for file in files] == drawn, "a report that is complete is not drawn again"
    files[0].write_text("as it was before the result")
    os.utime(files[0], ns=(0, 0))
    tiny.run(tmp_path / "run", samples_every=1, resume=True)
    assert "of the best epoch" in files[0].read_text()


def test_a_finished_run_that_is_made_longer_has_no_page_of_its_old_result(tmp_path, reports):
    folder = RunFolder(tiny.run(tmp_path / "run").path)
    assert folder.report.exists()
    with tiny.killed_after(_Play, 8):
        tiny.run(folder.path, epochs=3, resume=True, report=False)
    assert folder.read_result() is None
    assert not folder.report.exists()
    tiny.run(folder.path, epochs=3, resume=True)
    assert "of 3" in Page(folder.report.read_text()).text


def test_the_film_has_so_many_frames_and_pixels_at_most(tmp_path):
    paths = []
    for epoch in range(1, 61):
        paths.append((epoch, tmp_path / f"{epoch:04}.png"))
        save_png(paths[-1][1], torch.full((9, 1, 64, 64), epoch / 61))
    (tmp_path / "film.gif").write_bytes(film(paths))
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 40
        assert gif.n_frames * gif.width * (gif.height - 16) <= 1.55e6
        gif.seek(39)
        assert gif.convert("L").getpixel((5, 30)) == pytest.approx(60 / 61 * 255, abs=3)
    assert film(paths[:1]) is None


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05

    return max(luminance(one), luminance(other)) / min(luminance(one), luminance(other))


def test_contrast_in_light_dark_and_print():
    """WCAG AA: 4.5 for text, 3 for the lines of charts, whose colours are those of both schemes."""
    css = Path(report.__file__).with_name("page.css").read_text()
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for background in ("page", "band"):
            for text in ("ink", "quiet", "link", "warn"):
                assert contrast(scheme[text], scheme[background]) >= 4.5
        for colour in pygan.figures.curves.RUN_COLOURS:
            assert contrast(colour, scheme["page"]) >= 3


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
def test_a_browser_shows_it_on_a_telephone_without_errors(digits, tmp_path):
    text = report.write([digits.path, digits], tmp_path / "page.html").read_text()
    policy = re.search(r"<meta http-equiv=.*?>\n", text)[0]  # it forbids the script that measures
    script = "<script>document.title = [innerWidth, document.documentElement.scrollWidth]</script>"
    (tmp_path / "measured.html").write_text(text.replace(policy, "").replace("</body>", f"{script}</body>"))
    for name in ("page", "measured"):
        shown = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", "--window-size=375,800", str(tmp_path / f"{name}.html")],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert "CONSOLE" not in shown.stderr, shown.stderr
    inner, scroll = map(int, re.search(r"<title>(\d+),(\d+)</title>", shown.stdout).groups())
    assert scroll <= inner <= 500
