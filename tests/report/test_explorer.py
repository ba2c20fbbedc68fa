"""All images of a run in its report: the map, the orders, the lightbox, the address, in a real browser."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from raigen.judging.annotate import write_words
from raigen.report import explorer as module
from raigen.report.explorer import as_bytes, explorer_of, in_steps, places, principal
from raigen.report.page import read_neurons
from raigen.runs.run import Run
from tests.support.run_folder import HOSTILE, PROMPT, make_run, view, write

PHRASES = ["wearing a hat", "holding a cat", "that chat", HOSTILE]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    write_words(run, PHRASES, np.random.default_rng(3).normal(size=(4, 8)).astype(np.float32))
    run.activations_dir.mkdir()
    for start in (0, 16, 32, 48):
        (run.activations_dir / f"{start:06d}.safetensors").touch()
    write(run)
    return run


def unpacked(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["bytes"]), packed["type"])


def data_of(run: Run) -> dict:
    return explorer_of(run, run.attributes, read_neurons(run, run.attributes)).data


def texts(page: Chrome, selector: str) -> list[str]:
    return [found.text for found in page.find_elements(By.CSS_SELECTOR, selector)]


def images_shown(page: Chrome) -> list[int]:
    return [int(one.get_attribute("data-open")) for one in page.find_elements(By.CSS_SELECTOR, "#gallery button")]


def go(page: Chrome, address: str) -> None:
    page.execute_script("location.hash = arguments[0]; readAddress()", address)


# What the page holds.


def test_codes_of_listed_neurons_are_kept_for_every_image(whole: Run) -> None:
    data, codes = data_of(whole), whole.image_codes()
    assert [finding["neuron"] for finding in data["findings"]] == [a.neuron for a in whole.attributes]
    for finding in data["findings"]:
        kept, real = unpacked(finding["codes"]).astype(float), codes[:, finding["neuron"]]
        assert ((kept > 0) == (real > 0)).all()
        assert np.abs(kept / 255 * finding["peak"] - real).max() <= finding["peak"] / 255
        assert ((kept >= finding["clearly"]) == (real >= np.sort(real)[-10:].mean() / 4)).all()


def test_neurons_that_are_not_listed_keep_their_strongest_images(whole: Run) -> None:
    others, codes = data_of(whole)["others"], whole.image_codes()
    neurons, top = unpacked(others["neurons"]), unpacked(others["top"]).reshape(-1, others["count"])
    listed = {a.neuron for a in whole.attributes}
    assert set(neurons.tolist()) == set(np.flatnonzero((codes > 0).any(0)).tolist()) - listed
    assert others["count"] == 12
    for neuron, images, fires in zip(neurons[:20], top, unpacked(others["fires"]), strict=False):
        assert images.tolist() == np.argsort(-codes[:, neuron], kind="stable")[:12].tolist()
        assert fires == (codes[:, neuron] > 0).sum()


def test_many_neurons_share_the_budget(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOPS_BUDGET", 300 * 3 * 5)
    assert data_of(whole)["others"]["count"] == 5


def test_images_that_look_and_mean_alike_lie_near_each_other() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 30)
    rows, looks = (rng.normal(size=(60, width)) + 9 * group[:, None] for width in (8, 30))
    found = places(rows - rows.mean(0), looks, np.ones(60, bool))
    assert found.min() >= 0 and found.max() <= 1
    gaps = np.linalg.norm(found[:, None] - found[None], axis=2)
    same = group[:, None] == group[None]
    assert gaps[same].mean() < 0.6 * gaps[~same].mean()


def test_a_black_image_moves_no_other() -> None:
    rng = np.random.default_rng(0)
    rows, looks, shown = rng.normal(size=(40, 8)), rng.normal(size=(40, 30)), np.ones(40, bool)
    rows[7], looks[7], shown[7] = 500, -500, False
    assert np.abs(places(rows, looks, shown)[shown].std(0)).min() > 0.1


def test_few_directions_and_bytes_keep_the_order_of_likeness() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 96)) * np.linspace(3, 0.1, 96)
    rows -= rows.mean(0)
    small = as_bytes(rows @ principal(rows, 64)).astype(float)

    def cosines(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit @ unit[0]

    assert np.abs(cosines(rows) - cosines(small)).max() < 0.05


def test_steps_keep_zero_and_the_peak() -> None:
    assert in_steps(np.zeros(3), 0.0).tolist() == [0, 0, 0]


def test_the_atlas_fits_its_budget(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = module.atlas_of(whole)
    monkeypatch.setattr(module, "ATLAS_BUDGET", 0.5 * len(fine.uri))
    coarse = module.atlas_of(whole)
    assert len(coarse.uri) <= 0.5 * len(fine.uri) and coarse.width < fine.width == 64


def test_a_run_without_a_vocabulary_says_so(tmp_path: Path, browser: Chrome) -> None:
    run = make_run(tmp_path, n_attributes=1)
    assert data_of(run)["words"] is None
    write_words(run, ["a hat"], np.ones((1, 5), np.float32))  # of other embeddings
    assert data_of(run)["words"] is None
    write(run)
    browser.get(run.report().as_uri() + "#word=hat")
    assert "This run holds no vocabulary" in browser.find_element(By.ID, "gallery-says").text


# What a browser makes of it.


def test_every_image_can_be_reached(page: Chrome) -> None:
    assert page.find_element(By.ID, "gallery-count").text == "60 of 60 images"
    assert images_shown(page) == list(range(60))
    assert page.get_log("browser") == []


def test_a_listed_neuron_ranks_all_images(page: Chrome, whole: Run) -> None:
    neuron = whole.attributes[2].neuron
    go(page, f"#neuron={neuron}")
    codes = whole.image_codes()[:, neuron]
    found = images_shown(page)
    assert found[:10] == np.argsort(-codes, kind="stable")[:10].tolist() and len(found) == 60
    assert (np.diff(np.ceil(255 * codes[found] / codes.max())) <= 0).all()
    assert texts(page, "#gallery span")[0] == "activation 1.00" and texts(page, "#gallery span")[-1] == "does not fire"
    assert (
        page.find_element(By.CSS_SELECTOR, f"#findings [data-neuron='{neuron}']").get_attribute("aria-pressed")
        == "true"
    )


def test_a_neuron_that_is_not_listed_shows_its_strongest_images(page: Chrome, whole: Run) -> None:
    codes = whole.image_codes()
    go(page, "#neuron=7")
    assert images_shown(page) == np.argsort(-codes[:, 7], kind="stable")[:12].tolist()
    n_fires = int((codes[:, 7] > 0).sum())
    assert f"fires in {n_fires} images. This page keeps its 12" in page.find_element(By.ID, "gallery-says").text
    go(page, "#neuron=99999")
    assert "No neuron with this number" in page.find_element(By.ID, "gallery-says").text
    page.find_element(By.ID, "neuron-next").click()
    assert len(images_shown(page)) == 12


def test_pointing_at_a_finding_lights_the_images_in_which_it_fires_clearly(page: Chrome, whole: Run) -> None:
    go(page, "#all=")
    a = whole.attributes[0]
    codes = whole.image_codes()[:, a.neuron]
    clear = np.flatnonzero(codes >= np.sort(codes)[-10:].mean() / 4).tolist()
    button = page.find_element(By.CSS_SELECTOR, f"#findings [data-neuron='{a.neuron}']")
    assert page.execute_script("return explored.map.lit()") is None
    ActionChains(page).move_to_element(button).perform()
    assert sorted(page.execute_script("return explored.map.lit()")) == clear
    ActionChains(page).move_to_element(page.find_element(By.ID, "explore-title")).perform()
    assert page.execute_script("return explored.map.lit()") is None


def test_a_part_of_the_map_can_be_chosen_by_dragging_and_by_keys(page: Chrome, whole: Run) -> None:
    go(page, "#all=")
    canvas = page.find_element(By.ID, "map")
    width, height = canvas.rect["width"], canvas.rect["height"]
    drag = (
        ActionChains(page)
        .move_to_element_with_offset(canvas, int(-width / 2 + 5), int(-height / 2 + 5))
        .click_and_hold()
    )
    drag.move_by_offset(int(width / 2), int(height / 2)).release().perform()
    area = [int(side) for side in re.findall(r"-?\d+", page.current_url.split("area=")[1].replace("%2C", ","))]
    at = unpacked(data_of(whole)["places"]).reshape(-1, 2) / 65.535
    inside = [i for i, (x, y) in enumerate(at) if area[0] <= x <= area[2] and area[1] <= y <= area[3]]
    assert 0 < len(inside) < 60 and images_shown(page) == inside
    assert sorted(page.execute_script("return explored.map.lit()")) == inside
    canvas.send_keys(Keys.ENTER)  # all that is in view: everything
    assert len(images_shown(page)) == 60
    canvas.send_keys("++")
    canvas.send_keys(Keys.ENTER)
    assert 0 < len(images_shown(page)) < 60
    page.find_element(By.ID, "gallery-area").click()
    assert "area" not in page.current_url and len(images_shown(page)) == 60


def test_more_like_this_says_how_alike(page: Chrome, whole: Run) -> None:
    go(page, "#like=5")
    embeddings = whole.embeddings() - whole.embeddings().mean(0)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit[5]
    found = images_shown(page)
    assert found[:8] == np.argsort(-cosines)[:8].tolist()
    said = [float(text.removeprefix("likeness ")) for text in texts(page, "#gallery span")[:8]]
    assert said == pytest.approx(cosines[found[:8]], abs=0.02)


def test_a_word_ranks_images_and_neurons_without_a_model(page: Chrome, whole: Run) -> None:
    go(page, "#word=hat")
    words = np.random.default_rng(3).normal(size=(4, 8)).astype(np.float32).astype(np.float16)[0].astype(float)
    toward = whole.embeddings() @ words
    assert page.find_element(By.ID, "gallery-title").text == "“wearing a hat”"
    assert images_shown(page)[:10] == np.argsort(-toward)[:10].tolist()
    assert "1 other phrase holds" in page.find_element(By.ID, "gallery-says").text
    assert float(texts(page, "#gallery span")[0].removesuffix(" sd")) == pytest.approx(
        (toward.max() - toward.mean()) / toward.std(), abs=0.1
    )
    assert len(texts(page, "#gallery-neurons button")) == 8
    go(page, "#word=zzz")
    assert "No phrase of the vocabulary" in page.find_element(By.ID, "gallery-says").text and images_shown(page) == []


def test_what_is_typed_stands_in_the_address(page: Chrome) -> None:
    go(page, "#all=")
    page.find_element(By.ID, "word").send_keys("cat")
    assert page.current_url.endswith("#word=cat")
    assert page.find_element(By.ID, "gallery-title").text == "“holding a cat”"


def test_the_address_holds_the_state_and_the_back_button_works(page: Chrome, whole: Run) -> None:
    first, second = (a.neuron for a in whole.attributes[:2])
    page.get("about:blank")
    page.get(f"{whole.report().as_uri()}#neuron={first}&sort=rate")
    assert page.find_element(By.CSS_SELECTOR, "[data-key=rate]").get_attribute("aria-sort") == "ascending"
    ranks = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".ranking tbody td:first-child")]
    assert ranks == ["3", "2", "1", "4"]
    page.find_element(By.CSS_SELECTOR, f"#findings [data-neuron='{second}']").click()
    page.find_element(By.CSS_SELECTOR, "#gallery button").click()
    assert page.find_element(By.ID, "lightbox").is_displayed()
    assert page.current_url.endswith(f"#neuron={second}&image=10&sort=rate")
    page.back()
    assert not page.find_element(By.ID, "lightbox").is_displayed()
    page.back()
    assert (
        page.find_element(By.CSS_SELECTOR, f"#findings [data-neuron='{first}']").get_attribute("aria-pressed") == "true"
    )
    assert page.find_element(By.CSS_SELECTOR, "[data-key=rate]").get_attribute("aria-sort") == "ascending"
    page.find_element(By.CSS_SELECTOR, "nav a[href='#limits']").click()  # a plain link leaves the state
    assert (
        page.find_element(By.CSS_SELECTOR, f"#findings [data-neuron='{first}']").get_attribute("aria-pressed") == "true"
    )


def test_the_lightbox_tells_of_an_image_what_is_known(page: Chrome, whole: Run) -> None:
    a = whole.attributes[0]
    go(page, f"#neuron={a.neuron}&image=3")
    assert page.find_element(By.ID, "lightbox-title").text == "Seed 5003"
    assert texts(page, "#lightbox-findings button")[0].startswith(f"1. {a.title}, activation 0.8")
    command = page.find_element(By.ID, "lightbox-command").get_attribute("value")
    assert command.startswith(
        f"raigen image '{PROMPT}' --model portraits --num-inference-steps 20 --guidance-scale 1.0"
    )
    assert command.endswith(f"--seed 5003 --together 5000 5015 --sha256 {whole.samples()[3].sha256[:8]}")
    assert page.find_element(By.ID, "lightbox-file").get_attribute("href") == (
        whole.dir / whole.samples()[3].file
    ).as_uri().replace("00003", "000003")
    bright = "return document.getElementById('lightbox-image').toDataURL()"
    off = page.execute_script(bright)
    heat = page.find_element(By.ID, "lightbox-heat")
    assert texts(page, "#lightbox-heat option") == ["off", a.title]
    page.find_element(By.ID, "lightbox").send_keys("h")
    assert heat.get_attribute("value") == "0" and page.execute_script(bright) != off
    page.find_element(By.ID, "lightbox").send_keys(Keys.ARROW_RIGHT)
    assert page.find_element(By.ID, "lightbox-title").text == "Seed 5004"
    page.find_element(By.CSS_SELECTOR, "#lightbox-like button").click()
    assert "image=4" not in page.current_url and "image=" in page.current_url
    assert page.switch_to.active_element.get_attribute("id") == "lightbox-next"  # the pressed image has gone
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    WebDriverWait(page, 10).until(lambda page: "image" not in page.current_url)
    assert not page.find_element(By.ID, "lightbox").is_displayed()
    assert page.get_log("browser") == []


def test_an_image_of_a_card_opens(page: Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "article .image").click()
    assert page.find_element(By.ID, "lightbox-title").text == "Seed 5000"


def test_texts_from_strangers_stay_texts(page: Chrome, whole: Run) -> None:
    html = whole.report().read_text()
    assert html.count("</script>") == 2 and HOSTILE not in html
    go(page, "#word=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert page.find_element(By.ID, "gallery-title").text == "“<img src=x onerror=alert(1)>”"
    go(page, "#word=script")
    assert page.find_element(By.ID, "gallery-title").text == f"“{HOSTILE}”"
    go(page, "#neuron=__proto__&area=1,2,x&image=1e9&sort=constructor")
    assert page.get_log("browser") == []
    assert json.loads(re.findall(r'id="explorer-data">(.*?)</script>', html, re.S)[0])["words"]["phrases"] == PHRASES


def test_without_scripts_the_cards_stay_readable(browser: Chrome, whole: Run) -> None:
    view(browser, width=1280)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(whole.report().as_uri())
        assert not browser.find_element(By.ID, "explore").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "article .image .base").is_displayed()
        ActionChains(browser).move_to_element(browser.find_element(By.CSS_SELECTOR, "article .image")).perform()
        overlay = browser.find_element(By.CSS_SELECTOR, "article .image .overlay")
        assert overlay.value_of_css_property("opacity") == "0.7"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [375, 1280])
def test_the_lightbox_fits_the_screen(page: Chrome, width: int) -> None:
    view(page, width)
    go(page, "#image=3")
    box = page.find_element(By.ID, "lightbox").rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
