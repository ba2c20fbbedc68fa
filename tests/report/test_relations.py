"""Which findings come together, what could not have been found, the cover's numbers, the strengths under a slider."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from raigen.discovery.codes import fires
from raigen.discovery.reach import reach_of
from raigen.report.relations import together
from raigen.runs.files import write_tensors
from raigen.runs.records import RareAttribute
from raigen.stats import images_needed
from tests.support.amplified_run import bring_out
from tests.support.run_folder import make_run, text_of, view, write


def attribute(neuron: int) -> RareAttribute:
    return RareAttribute(neuron + 1, neuron, 0.5, 0.01, 0.4, (), label=f"thing {neuron}")


def codes_of(*images: range, n: int = 400) -> np.ndarray:
    """Codes of 1 in some images, for each neuron."""
    codes = np.zeros((n, len(images)))
    for neuron, chosen in enumerate(images):
        codes[list(chosen), neuron] = 1
    return codes


def test_what_comes_together_more_often_than_by_chance_is_told_with_its_interval() -> None:
    codes = codes_of(range(20), range(8, 28), range(100, 120))
    (pair,) = together([attribute(n) for n in range(3)], codes)
    assert (pair.one.neuron, pair.other.neuron, pair.n_one, pair.n_other, pair.n_both) == (0, 1, 20, 20, 12)
    assert pair.lift.ratio == pytest.approx((12 / 20) / (8 / 380))
    assert pair.lift.low < pair.lift.ratio < (pair.lift.high or 0) and not pair.exclude and pair.q < 1e-8


def test_what_excludes_each_other_is_told() -> None:
    (pair,) = together([attribute(0), attribute(1)], codes_of(range(150), range(150, 320)))
    assert pair.exclude and pair.n_both == 0 and pair.lift.ratio == 0


def test_what_is_independent_is_not_told() -> None:
    codes = (np.random.default_rng(0).random((400, 4)) < 0.2).astype(float)
    assert together([attribute(n) for n in range(4)], codes) == []
    assert together([attribute(0)], codes) == []


def test_what_only_ever_shows_with_another_has_a_smallest_ratio() -> None:
    (pair,) = together([attribute(0), attribute(1)], codes_of(range(20), range(10)))
    assert pair.lift.ratio is None and pair.lift.high is None and pair.lift.low > 1 and not pair.exclude


def test_weak_firing_does_not_count() -> None:
    codes = np.r_[np.linspace(1, 0.6, 10), 0.21, 0.19, np.zeros(8)]
    assert fires(codes[:, None])[:, 0].tolist() == [True] * 11 + [False] * 9


def test_the_report_says_what_comes_together(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    codes = run.image_codes().copy()
    codes[:, run.attributes[1].neuron] = codes[:, run.attributes[0].neuron]
    write_tensors(run.codes_path, {"image_codes": torch.from_numpy(codes)})
    write(run)
    text = text_of(run)
    assert re.search(r"What comes together .* of 3 pairs .*at least [\d.]+ times as often", text)


def test_what_could_not_have_been_found_is_a_panel(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    run.write_attributes([replace(run.attributes[0], why_aside="combination")] * 2, run.aside_path)
    write(run)
    text = text_of(run)
    line = reach_of(60, False)[2]
    assert line.rate == 0.002 and line.found is None
    assert f"0.2 %{100 * line.shown:.0f} %under 0.1 %not known{images_needed(0.002):,}" in text
    assert "Many images show a part of it: perhaps a combination of frequent things" in text
    assert f"Neuron {run.attributes[0].neuron}." in text


def test_the_cover_has_two_sentences_and_three_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write(run)
    html = run.report().read_text()
    lead = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", re.findall(r'<p class="lead">(.*?)</p>', html, re.S)[0]))
    assert len(re.findall(r"\.(?= |$)", lead.replace("fresh images (95", "").strip())) == 2
    figures = re.findall(r"<dd>(.*?)</dd>", re.findall(r'<dl class="figures">(.*?)</dl>', html, re.S)[0])
    assert figures == ["4", "1.2\xa0%", "26\xa0%"]  # of 300 images none shows the rarest; 1 - .995 ** 60


def test_strengths_lie_under_a_slider_and_images_flip_to_their_twins(tmp_path: Path, browser: Chrome) -> None:
    run = make_run(tmp_path / "run")
    bring_out(run)
    write(run)
    view(browser, 1280)
    browser.get(run.report().resolve().as_uri())
    dial = browser.find_element(By.CSS_SELECTOR, ".dial")

    def sources() -> list[str]:
        return [image.get_attribute("src") for image in dial.find_elements(By.CSS_SELECTOR, ".row img")]

    strips = browser.execute_script(
        """return [...arguments[0].nextElementSibling.querySelectorAll('.strip')]
        .map((strip) => [strip.dataset.name, [...strip.querySelectorAll('img')].map((image) => image.src)])""",
        dial,
    )
    by_name = dict(strips)
    method = dial.find_element(By.TAG_NAME, "select").get_attribute("value")
    of_method = [images for name, images in strips if name.rsplit(", ", 1)[0] == method]
    assert sources() == of_method[-1]
    slider = dial.find_element(By.TAG_NAME, "input")
    slider.send_keys(Keys.HOME)
    assert sources() == by_name["unsteered"] and dial.find_element(By.TAG_NAME, "output").text == "unsteered"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert sources() == of_method[0]
    dial.find_element(By.CSS_SELECTOR, ".row button").click()
    assert sources() == [by_name["unsteered"][0], *of_method[0][1:]]
    dial.find_element(By.CSS_SELECTOR, ".flip").click()
    assert sources() == by_name["unsteered"]
    assert browser.get_log("browser") == [] and json.dumps(strips)
