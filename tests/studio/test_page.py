"""The page of the studio in a real browser, on the bundled model, and the Space that it is exported to.

Gradio wants an older pillow than the rest, so `make extras` runs this file in an environment of its own.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import raigen
from raigen.runs.run import Run
from tests.support.run_folder import view

pytest.importorskip("gradio", reason="needs the extra studio", exc_type=ImportError)
SECONDS = 240  # for what takes a second on an idle machine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small audit of the bundled model; its first neuron has a name of the world."""
    run = raigen.audit(
        "a photo of a doctor", run_dir=tmp_path_factory.mktemp("runs") / "run", n_images=50, n_fresh_images=2,
        num_inference_steps=2, d_sae=160, min_images=2, n_attributes=2, n_label_images=0, device="cpu",
    )  # fmt: skip
    named = zip(run.attributes, ("in the snow", "holding a cat"), strict=False)
    run.write_attributes([replace(attribute, label=label) for attribute, label in named])
    return run


@pytest.fixture(scope="module")
def url(run):
    command = [sys.executable, "-m", "raigen", "studio", str(run.dir), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[0]
        process.terminate()


@pytest.fixture
def page(browser, url):
    view(browser, width=1280)
    browser.get(url)
    until(lambda: browser.find_elements(By.ID, "make"))
    return browser


def until(holds):
    """What `holds` gives, as soon as that is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except StaleElementReferenceException:
            pass
        time.sleep(0.2)
    raise AssertionError("it did not come true")


def text(page, name):
    return page.find_element(By.ID, name).text


def fill(page, selector, value):
    field = page.find_element(By.CSS_SELECTOR, selector)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(value, Keys.TAB)


def tab(page, name):
    next(one for one in page.find_elements(By.CSS_SELECTOR, "button[role=tab]") if one.text == name).click()


def test_a_slider_makes_twins_that_are_judged_and_kept(page, run):
    fill(page, "#slider-0 input[type=number]", "1")
    fill(page, "#count input", "2")
    page.find_element(By.ID, "make").click()
    until(lambda: "2 of 2 pairs, mean fidelity" in text(page, "told"))
    assert "in the snow: " in text(page, "told") and "portraits judge" in text(page, "told")
    until(lambda: len(page.find_elements(By.CSS_SELECTOR, "#pairs img")) >= 4)
    assert "seed 2000000001" in text(page, "pairs") and "fidelity" in text(page, "pairs")
    [kept] = (run.studio_dir / "gallery").glob("*.json")
    assert [pair["number"] for pair in json.loads(kept.read_text())["pairs"]] == [0, 1]
    fill(page, "#recipe-name input", "snow")
    page.find_element(By.ID, "save").click()
    until(lambda: "--recipe" in text(page, "told"))
    saved = json.loads((run.studio_dir / "recipes" / "snow.json").read_text())
    assert [(one["neuron"], one["strength"]) for one in saved["turned"]] == [(run.attributes[0].neuron, 1.0)]
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


def test_what_goes_wrong_is_said_on_the_page(page):
    page.find_element(By.ID, "make").click()
    until(lambda: "expected a strength other than 0" in page.find_element(By.TAG_NAME, "body").text)


def test_stop_stops_after_a_pair_and_frees_the_run(page, run):
    fill(page, "#slider-0 input[type=number]", "2")
    fill(page, "#count input", "64")
    page.find_element(By.ID, "make").click()
    until(lambda: " of 64 pairs" in text(page, "told"))
    page.find_element(By.ID, "stop").click()
    newest = max((run.studio_dir / "gallery").glob("*.json"))
    time.sleep(5)
    before = newest.read_text()
    time.sleep(5)
    assert newest.read_text() == before and 1 <= len(json.loads(before)["pairs"]) < 64
    with Run(run.dir).locked():
        pass


def test_a_neuron_listed_by_hand_gets_a_slider(page, run):
    listed = {attribute.neuron for attribute in run.attributes}
    number = next(n for n in range(1, 160) if n not in listed and (run.image_codes()[:, n] > 0).any())
    tab(page, "Neurons")
    until(lambda: page.find_element(By.ID, "neuron").is_displayed())
    fill(page, "#neuron input", str(number))
    until(lambda: len(page.find_elements(By.CSS_SELECTOR, "#strongest img")) >= 5)
    fill(page, "#hand-name input", "a dark *corner*")
    fill(page, "#hand-by input", "Ada")
    page.find_element(By.ID, "list").click()
    until(lambda: "Listed at rank" in text(page, "hand-told"))
    *_, added = run.attributes
    assert (added.neuron, added.label, added.labeled_by) == (number, "a dark *corner*", "Ada")
    tab(page, "Steer")
    until(lambda: f"a dark *corner* (neuron {number})" in text(page, f"slider-{len(run.attributes) - 1}"))


def test_only_this_machine_is_answered(url):
    place = urlsplit(url)
    assert place.hostname == "127.0.0.1"
    for host, status in (("evil.example", 400), (place.netloc, 200)):
        connection = HTTPConnection(place.hostname, place.port)
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()


def test_an_exported_space_runs_by_itself(run, browser, tmp_path):
    space = tmp_path / "space"
    command = [sys.executable, "-m", "raigen", "studio", str(run.dir), "--export", str(space)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith(f"{space}: a Space")
    front = (space / "README.md").read_text().split("---")[1].split("\n")
    assert 'title: "raigen: a photo of a doctor"' in front and "app_file: app.py" in front
    assert not (space / "run" / "activations").exists() and not (space / "run" / "images").exists()
    code = "import raigen, runpy; print(raigen.__file__); runpy.run_path('app.py')"
    env = os.environ | {"PORT": "0", "PYTHONPATH": str(space)}
    app = [sys.executable, "-c", code]
    with subprocess.Popen(app, cwd=space, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert Path(process.stdout.readline().strip()) == space / "raigen" / "__init__.py"
        address = process.stdout.readline().split()[0]
        browser.get(f"http://127.0.0.1:{urlsplit(address).port}/")
        until(lambda: browser.find_elements(By.ID, "make"))
        assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")] == ["Steer"]
        fill(browser, "#slider-0 input[type=number]", "1")
        fill(browser, "#count input", "1")
        browser.find_element(By.ID, "make").click()
        until(lambda: "1 of 1 pairs" in text(browser, "told"))
        process.terminate()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "expected a new or empty folder; it holds other files" in again.stderr
