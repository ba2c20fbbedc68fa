"""The report, opened as a reader opens it: from a file, in a browser, without a network."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from raigen.config import STAGES, CaptureConfig, ReportConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.records import Outcome, Presence, RareAttribute, Sample
from raigen.report import report
from raigen.run import Run, sha256, write_tensors, write_text
from raigen.world.attributes import BY_NAME
from raigen.world.draw import draw
from raigen.world.planted import rates, sample_attributes, visible

PROMPT = "a photo of a doctor"
HOSTILE = "<script>alert(1)</script>"
N_TOP = 10
EXACT = "95 % Clopper-Pearson"
SHOWN = ("turban", "snow", "cat", "black and white", "headscarf", "pink hair", "flower", "left of frame", "field",
         "waving")  # fmt: skip
CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


# A run folder as the stages leave it, with drawn portraits and made-up numbers.


def _finish(run: Run, stage: str, config: Any, facts: dict[str, Any], outputs: list[Path]) -> None:
    run.begin(stage, config)
    run.finish(stage, Outcome(outputs, facts), 12.3 + 40 * STAGES.index(stage))


@cache
def _portrait(index: int, name: str | None) -> bytes:
    rng = np.random.default_rng(index)
    attributes = sample_attributes(PROMPT, rng)
    if name is not None:
        attributes = visible(replace(attributes, headwear="no headwear", held="empty hands"))
        attributes = visible(replace(attributes, **{BY_NAME[name].field: name}))
    buffer = io.BytesIO()
    draw(attributes, rng).save(buffer, "PNG")
    return buffer.getvalue()


def _save(run: Run, sample: Sample, data: bytes) -> Sample:
    run.images_dir.mkdir(exist_ok=True)
    (run.dir / sample.file).write_bytes(data)
    return sample._replace(sha256=sha256(data))


def _capture(run: Run, config: CaptureConfig, values: tuple[str, ...]) -> list[Sample]:
    """Draws the pictures; picture i < N_TOP * len(values) shows the value i // N_TOP."""
    samples = []
    for index in range(config.n_images):
        data = _portrait(index, values[index // N_TOP] if index < N_TOP * len(values) else None)
        samples.append(
            _save(run, Sample(index, config.prompt, config.base_seed + index, f"images/{index:05d}.png", ""), data)
        )
    write_text(run.samples_path, "".join(json.dumps(sample._asdict()) + "\n" for sample in samples))
    facts = {"model_id": "raigen/portraits", "scheduler": "DDIMScheduler", "num_inference_steps": 20,
             "guidance_scale": 1.0, "hookpoint": "unet.mid_block", "d_in": 192}  # fmt: skip
    _finish(run, "capture", config, facts, [run.samples_path])
    return samples


def _attribute(rank: int, top: list[Sample], stage: str) -> RareAttribute:
    rng = np.random.default_rng(rank)
    attribute = RareAttribute(rank, 17 * rank + 4, 0.93 - 0.031 * rank, 0.004 * (rank + 1) ** 1.3,
                              0.41 - 0.02 * rank + rng.uniform(0, 0.06), tuple(s.file for s in top))  # fmt: skip
    if stage == "discover":
        return attribute
    if rank in (4, 8):
        return replace(attribute, label_auroc=0.71)
    name = HOSTILE if rank == 2 else BY_NAME[SHOWN[rank - 1]].phrase
    hits = (2, 1, 0, 0, 9, 2, 7, 21, 4, 3)[rank - 1]
    n = 300 - (rank == 5) * 4
    low, high = binomtest(hits, n).proportion_ci(0.95)
    return replace(
        attribute, label=name, keywords=("cloth", "head", name), suggested_prompt=f"{PROMPT}, {name}",
        label_auroc=0.99 - 0.01 * rank, labeled_by="CLIP",
        presence=Presence(hits / n, float(low), float(high), hits, n, 300 - n, "portraits judge", EXACT),
    )  # fmt: skip


def _discover(run: Run, samples: list[Sample], n_attributes: int, until: str) -> list[RareAttribute]:
    attributes = [_attribute(r, samples[N_TOP * (r - 1) : N_TOP * r], until) for r in range(1, n_attributes + 1)]
    write_text(run.attributes_path, json.dumps([asdict(a) for a in attributes]))
    rng = np.random.default_rng(0)
    rows = {i: (float(f), float(d)) for i, (f, d) in enumerate(zip(rng.beta(0.5, 1.2, 300), rng.gamma(2, 0.04, 300)))}  # noqa: B905
    rows |= {a.neuron: (a.frequency, a.distinctiveness) for a in attributes}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["neuron", "frequency", "distinctiveness", "minority_score", "listed"])
    for index, (frequency, far) in rows.items():
        table.writerow([index, max(frequency, 0.002), far, 0.5, int(index in {a.neuron for a in attributes})])
    table.writerow([300, 0.003, "", "", 0])
    table.writerow([301, 0, "", "", 0])
    write_text(run.neurons_path, text.getvalue())
    y, x = np.mgrid[0:8, 0:8]
    centers = [(1.5, 4), (2, 1), (5.5, 1.5), (4, 4), (3, 4), (1.5, 3.5), (4.8, 1.4), (3, 1.2), (2, 6), (3.6, 6.8)]
    maps = np.zeros((n_attributes, N_TOP, 8, 8), np.float32)
    for j in range(n_attributes):
        for i in range(N_TOP):
            blob = 4 * 0.93**i * np.exp(-((y - centers[j][0]) ** 2 + (x - centers[j][1]) ** 2) / 2.4)
            maps[j, i] = np.where(blob > 0.5, blob, 0)
    write_tensors(run.heatmaps_path, {"heatmaps": torch.from_numpy(maps)})
    _finish(run, "train", TrainConfig(), {"d_sae": 3072, "group_sizes": [307, 2765], "fvu": 0.08123, "l0": 11.9,
            "n_dead": 1}, [])  # fmt: skip
    _finish(run, "discover", run.config_of("discover"), {"embedder": "portraits-clip", "n_kept": 14}, [])
    return attributes


def _truth(run: Run, attributes: list[RareAttribute]) -> None:
    planted = rates(PROMPT)
    entries = [{"neuron": a.neuron, "value": SHOWN[a.rank - 1], "share": 1.0, "rate": planted[SHOWN[a.rank - 1]],
                "hit": True} for a in attributes]  # fmt: skip
    entries[-1] |= {"value": None, "share": 0.3, "rate": None, "hit": False}
    recall = [{"band": "0.5 %", "planted": 2, "found": 1}, {"band": "1 %", "planted": 3, "found": 3},
              {"band": "2 %", "planted": 5, "found": 4}, {"band": "5 %", "planted": 2, "found": 1}]  # fmt: skip
    write_text(run.truth_path, json.dumps({"values": planted, "attributes": entries, "recall": recall,
               "n_hits": len(entries) - 1}))  # fmt: skip


def make_run(dir: Path, n_attributes: int = 4, n_images: int = 60, until: str = "evaluate") -> Run:
    """A run in `dir` as it stands after the stage `until` (`discover` or `evaluate`)."""
    run = Run.create(dir)
    config = CaptureConfig(PROMPT, n_images=n_images, base_seed=5000)
    samples = _capture(run, config, SHOWN[:n_attributes])
    attributes = _discover(run, samples, n_attributes, until)
    if until == "evaluate":
        _finish(run, "annotate", run.config_of("annotate"), {"labeled_by": "CLIP", "n_named": n_attributes - 1}, [])
        _finish(run, "evaluate", run.config_of("evaluate"), {"judge": "portraits judge", "n_unscored": 4}, [])
        _truth(run, attributes)
    return run


def write(run: Run, config: ReportConfig = ReportConfig()) -> Outcome:  # noqa: B008
    run.begin("report", config)
    ticks = report(run, config)
    while True:
        try:
            next(ticks)
        except StopIteration as end:
            run.finish("report", end.value, 0.1)
            return end.value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    write(run)
    return run


# What the file holds.


def test_the_file_asks_for_nothing_from_outside(whole: Run) -> None:
    html = whole.report().read_text()
    assert not re.search(r"""(src|href)=(?!"(data:|#))""", html)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_hostile_texts_are_escaped(whole: Run) -> None:
    html = whole.report().read_text()
    assert HOSTILE not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script>") == 1


def test_the_same_run_gives_the_same_page(whole: Run) -> None:
    first = whole.report().read_bytes()
    write(whole)
    assert whole.report().read_bytes() == first


def test_ten_attributes_fit_in_three_megabytes(whole: Run) -> None:
    card = whole.report().stat().st_size / 4
    assert 10 * card < 3e6


def test_the_summary_says_the_numbers_in_words(whole: Run) -> None:
    text = _text(whole)
    assert (
        "In 60 pictures that the model portraits made for this prompt, raigen found 4 candidates for a rare attribute; "
        "3 could be named. The rarest, “holding a cat”, was seen in none of 300 fresh pictures (95 % "
        "interval 0\N{EN DASH}1.2 %)."
    ) in text
    assert "Here the truth is known: 3 of 4 candidates are hits." in text


def test_a_run_without_names_and_rates_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    outcome = write(run)
    text = _text(run)
    assert outcome.outputs == [run.report_path]
    assert "1 candidate for a rare attribute; they have not been named yet. How often" in text
    assert "Not named yet" in text and "Presence not measured" in text and "planted" not in text


def test_a_run_that_found_nothing_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=0, until="discover")
    write(run)
    assert "raigen found no candidate for a rare attribute." in _text(run)


def test_an_unscored_attribute_is_not_a_rare_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    nothing = Presence(0.0, 0.0, 1.0, 0, 0, 300, "mute judge", EXACT)
    write_text(run.attributes_path, json.dumps([asdict(replace(run.attributes[0], presence=nothing))]))
    write(run)
    text = _text(run)
    assert "mute judge gave no usable answer for any of 300 pictures." in text
    assert "has not been measured" in text and "of fresh pictures show it" not in text


def test_every_judge_has_its_rate_and_no_vote_is_taken(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    first = run.attributes[0]
    other = replace(first.presence, rate=0.02, hits=6, judge="m at 127.0.0.1:8000")
    found = replace(first, other_presences=(other,), judges_alpha=0.49, labeled_by="m at 127.0.0.1:8000")
    write_text(run.attributes_path, json.dumps([asdict(found)]))
    write(run)
    text = _text(run)
    assert "judge: portraits judge" in text and re.search(r"m at 127\.0\.0\.1:8000: 2\.0\s%, interval", text)
    assert "alpha 0.49" in text


@pytest.mark.parametrize(
    ("by", "words"),
    [("m at h", "m at h found nothing that these pictures share"), (None, "asked gave no answer that can be read")],
)
def test_no_answer_and_nothing_found_are_told_apart(tmp_path: Path, by: str | None, words: str) -> None:
    run = make_run(tmp_path, n_attributes=1)
    unnamed = replace(run.attributes[0], label=None, label_auroc=None, presence=None, labeled_by=by)
    write_text(run.attributes_path, json.dumps([asdict(unnamed)]))
    write(run)
    assert words in _text(run)


def test_controls_are_random_pictures_that_are_not_among_the_top(whole: Run) -> None:
    html = whole.report().read_text()
    cards = re.findall(r"<article.*?</article>", html, re.S)
    assert len(cards) == 4
    for card in cards:
        top = re.findall(r"strongest picture, seed (\d+)", card)
        control = re.findall(r"random picture, seed (\d+)", card)
        assert len(top) == len(control) == 10 and not set(top) & set(control)


def test_large_pictures_become_thumbnails(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    samples = []
    for sample in run.samples():
        buffer = io.BytesIO()
        Image.open(run.dir / sample.file).resize((400, 200)).save(buffer, "PNG", compress_level=1)
        samples.append(_save(run, sample, buffer.getvalue()))
    write_text(run.samples_path, "".join(json.dumps(s._asdict()) + "\n" for s in samples))
    assert write(run).facts["bytes"] < 300_000
    assert 'class="pictures pixels"' not in run.report().read_text()


def test_heatmaps_of_another_run_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    write_tensors(run.heatmaps_path, {"heatmaps": torch.zeros(2, N_TOP, 8, 8)})
    with pytest.raises(RaigenError, match=r"expected heatmaps of 1 neurons x 10 pictures.*--redo discover"):
        write(run)


def test_the_truth_of_another_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    _truth(run, [replace(run.attributes[0], neuron=9)])
    with pytest.raises(RaigenError, match=r"truth\.json: expected the neurons of attributes\.json"):
        write(run)


# What a browser makes of it.


@pytest.fixture(scope="module")
def browser(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    for program in (CHROMIUM, CHROMEDRIVER):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; install it with: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
             "disable-sync", "no-first-run", f"user-data-dir={tmp_path_factory.mktemp('profile')}"]  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Chrome, whole: Run) -> Chrome:
    _view(browser, width=1280)
    browser.get(whole.report().resolve().as_uri())
    return browser


def _view(browser: Chrome, width: int, height: int = 900, scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_it_opens_without_complaints(page: Chrome) -> None:
    assert page.get_log("browser") == []
    asked = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    broken = page.execute_script("return [...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    assert PROMPT in page.title


def test_the_slider_fades_every_overlay(page: Chrome) -> None:
    slider = page.find_element(By.ID, "overlay")
    overlays = page.find_elements(By.CSS_SELECTOR, ".overlay")
    assert len(overlays) == 4 * N_TOP
    assert overlays[0].value_of_css_property("opacity") == "0.7"
    slider.send_keys(Keys.HOME)
    assert {o.value_of_css_property("opacity") for o in overlays} == {"0"}
    slider.send_keys(Keys.ARROW_RIGHT)
    assert overlays[-1].value_of_css_property("opacity") == "0.05"
    assert page.find_element(By.ID, "overlay-value").text == "5 %"


def test_an_overlay_covers_its_picture(page: Chrome) -> None:
    base, overlay = page.find_elements(By.CSS_SELECTOR, "article .picture:first-child img")[:2]
    assert base.rect == overlay.rect and base.rect["width"] == 128


def test_the_table_sorts_both_ways(page: Chrome) -> None:
    def ranks() -> list[str]:
        return [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".ranking tbody td:first-child")]

    button = page.find_element(By.XPATH, "//button[text()='In fresh pictures']")
    button.send_keys(Keys.ENTER)
    assert ranks() == ["3", "2", "1", "4"]  # what was not measured stays last
    button.send_keys(Keys.ENTER)
    assert ranks() == ["1", "2", "3", "4"]
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"


def test_a_pin_shows_its_attribute_on_focus_and_leads_to_it(page: Chrome) -> None:
    pin = page.find_elements(By.CSS_SELECTOR, ".pin")[1]
    tip = pin.find_element(By.CSS_SELECTOR, ".tip")
    assert not tip.is_displayed()
    page.find_elements(By.CSS_SELECTOR, ".pin")[0].send_keys(Keys.TAB)
    assert page.switch_to.active_element == pin and tip.is_displayed() and HOSTILE in tip.text
    pin.send_keys(Keys.ENTER)
    assert page.current_url == pin.get_attribute("href")


@pytest.mark.parametrize("width", [375, 800, 1280])
def test_nothing_overflows_sideways(page: Chrome, width: int) -> None:
    _view(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_is_dark_for_those_who_want_it_dark(page: Chrome) -> None:
    def shades() -> tuple[int, int]:
        body = page.find_element(By.TAG_NAME, "body")
        paper, ink = (body.value_of_css_property(name) for name in ("background-color", "color"))
        return int(re.findall(r"\d+", paper)[0]), int(re.findall(r"\d+", ink)[0])

    assert shades()[0] > 240 and shades()[1] < 40
    _view(page, 1280, scheme="dark")
    assert shades()[0] < 40 and shades()[1] > 220


def test_every_part_has_a_name_and_every_id_is_unique(page: Chrome) -> None:
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.execute_script("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert {target[1:] for target in targets} <= set(ids)
    assert page.execute_script("return [...document.images].every(i => i.hasAttribute('alt'))")
    assert page.find_element(By.ID, "overlay").accessible_name == "Where the neuron fires"


def test_it_prints_without_its_controls(page: Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.find_element(By.ID, "overlay").is_displayed()
    assert page.find_element(By.CSS_SELECTOR, ".overlay").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def _text(run: Run) -> str:
    """The text of the page as a reader meets it: tags dropped, spaces folded."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", run.report().read_text(), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", body)))
