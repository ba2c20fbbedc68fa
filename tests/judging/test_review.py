"""A person ticks in the browser, downloads, brings it back: rates then stand checked beside raw."""

import csv
import json
import re
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from raigen.cli.main import main
from raigen.errors import RaigenError
from raigen.judging.calibration import Known, calibrated, calibration_of, caution, read_calibration
from raigen.judging.posterior import Calibration, calibrated_interval
from raigen.judging.review import Task, digest, read_ticks, review, reviewed_rate, tasks, to_look_at
from raigen.runs.files import write_text
from raigen.runs.records import Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.stats import rate_interval
from tests.support.run_folder import HOSTILE, make_run, text_of, view, write

RAW = Presence(0.02, 0.009, 0.04, 6, 300, 0, "a judge", "95 % Clopper-Pearson")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def ticked(run: Run, n_shows: int | None = None, **changes) -> Path:
    """A file as the browser makes it, of the first task, with all or the first `n_shows` images ticked."""
    task = tasks(run)[0]
    files = [sample.file for sample in task.images]
    one = {"neuron": task.attribute.neuron, "label": task.attribute.label, "sha256": digest(task.images),
           "shows": files[:n_shows], "does_not": [] if n_shows is None else files[n_shows:]}  # fmt: skip
    path = run.dir.parent / "ticks.json"
    path.write_text(json.dumps({"format": 1, "reviewed": [one | changes]}))
    return path


def test_the_sheet_holds_what_the_judge_saw_and_some_that_it_did_not(run: Run) -> None:
    first, second, third = tasks(run)
    assert [task.attribute.rank for task in (first, second, third)] == [1, 2, 3]  # the fourth has no name
    said = dict(zip(first.files, first.scores, strict=True))
    assert len(said) == 23 and sum(score > 0 for score in said.values()) == 2  # one of the 24 is unscored
    assert len(first.images) == 20 and sum(said[sample.file] > 0 for sample in first.images) == 2
    assert [p.sha256 for p in first.images] == sorted(p.sha256 for p in first.images)
    assert tasks(run)[0].images == first.images


def test_no_sheet_is_made_where_none_is_wanted(run: Run) -> None:
    run.begin("report", replace(run.config.report, n_review_images=0))
    assert tasks(run) == []


def test_looks_go_where_the_judge_is_unsure() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.uniform(-5, 0, 970), rng.uniform(0, 1, 30)])
    looks = [to_look_at(scores, 20, seed) for seed in range(200)]
    assert all(len(set(look)) == 20 and (scores[look] > 0).sum() == 10 for look in looks)
    drawn = np.bincount(np.concatenate(looks), minlength=1000)
    surest, least_sure = scores < -4, (scores > -1) & (scores < 0)
    assert drawn[least_sure].mean() > 3 * drawn[surest].mean() > 0
    assert len(to_look_at(scores[:5], 20, 0)) == len(to_look_at(np.ones(5), 20, 0)) == 5  # there are no more
    assert (scores[to_look_at(scores[-35:], 20, 0) - 35] > 0).sum() == 15  # of five others


@pytest.mark.parametrize(("rate", "sensitivity", "specificity"), [(0.01, 0.7, 0.97), (0.05, 0.9, 0.98)])
def test_the_checked_rate_covers_the_truth_where_the_judge_errs(rate, sensitivity, specificity) -> None:
    """A judge whose score is the true one plus noise. docs/log.md has all cells."""
    rng, covered, raw = np.random.default_rng(3), 0, 0
    threshold = norm.ppf(specificity)
    for seed in range(60):
        shows = rng.random(300) < rate
        scores = rng.normal(size=300) + shows * (threshold - norm.ppf(1 - sensitivity)) - threshold
        answers, look = np.full(300, np.nan), to_look_at(scores, 20, seed)
        answers[look] = shows[look]
        covered += reviewed_rate(scores, answers, draws=1000).interval.low <= rate
        covered += rate <= reviewed_rate(scores, answers, draws=1000).interval.high
        raw += rate_interval(int((scores > 0).sum()), 300).low <= rate
    assert covered >= 2 * 60 - 6 and raw < 45


def test_the_width_is_told_before_and_more_looks_make_it_narrower() -> None:
    scores = np.concatenate([np.linspace(-4, -0.1, 290), np.linspace(0.1, 2, 10)])
    files, widths = [f"fresh/{index}.png" for index in range(300)], []
    attribute = RareAttribute(1, 4, 0.9, 0.01, 0.4, (), "a hat", presence=RAW)
    for n_looks in (20, 60):
        look = to_look_at(scores, n_looks, 0)
        task = Task(attribute, [Sample(i, "p", i, files[i], "") for i in look], files, scores)
        widths.append(task.expected_width(0.95))
        seen = sorted(look)[-5:]  # the half of the ten hits with the higher scores
        found = task.checked({files[i]: i in seen for i in look}, 0.95)
        assert found.high - found.low == widths[-1] and found.hits == 5
    assert 0.01 < widths[1] < widths[0] < 0.1


def test_ticks_become_a_checked_rate_beside_the_raw_one(run: Run) -> None:
    write(run)
    before = run.attributes
    task = tasks(run)[0]
    shows, does_not = [p.file for p in task.images[:3]], [p.file for p in task.images[3:]]
    path = ticked(run, n_shows=3)
    answers = np.array([1.0 if file in shows else 0 if file in does_not else np.nan for file in task.files])
    for _ in range(2):  # the second time replaces the first
        (found,) = review(run, path)
        (rate,) = found.corrected
        expected, (low, high, method) = reviewed_rate(task.scores, answers)
        assert (rate.rate, rate.low, rate.high, rate.hits, rate.n) == (expected, low, high, 3, 300)
        assert low < rate.rate < high
        assert rate.mode == "checked" and rate.interval == f"95 % {method}"
        assert replace(found, corrected=()) == before[0] and run.attributes[1:] == before[1:]
        rows = list(csv.DictReader(run.presence_path.read_text().splitlines()))
        assert [(row["rank"], row["mode"]) for row in rows] == [
            ("1", "raw"),
            ("1", "checked"),
            ("2", "raw"),
            ("3", "raw"),
        ]
    assert run.is_done("evaluate", run.config.evaluate)
    assert read_ticks(run, run.review_path) == {
        found.neuron: dict.fromkeys(shows, True) | dict.fromkeys(does_not, False)
    }
    write(run)
    text = text_of(run)
    assert "portraits judge raw" in text and re.search(r"portraits judge checked .* a person saw it in 3 images", text)


def test_the_command_brings_it_back_and_writes_the_report_again(run: Run, capsys) -> None:
    write(run)
    assert main(["review", str(run.dir), str(ticked(run))]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^a doctor in a turban|raw, \d", out) and "checked" in out and "report.html" in out
    assert "a person saw it in 20 images" in text_of(run)
    assert main(["review", str(run.dir), str(run.dir / "gone.json")]) == 2
    assert "expected the file that review.html downloads; there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "another"}, "are of other images"),
        ({"neuron": 999}, "are of other images"),
        ({"sha256": "0" * 64}, "are of other images"),
        ({"shows": ["../../etc/passwd"]}, "are of other images"),
        ({"shows": 3}, "expected the file that review.html downloads; 'int'"),
        ({"neuron": []}, r"expected the file that review.html downloads; int\(\)"),
    ],
)
def test_ticks_of_something_else_are_refused(run: Run, changes, message) -> None:
    attributes, presence = run.attributes_path.read_bytes(), run.presence_path.read_bytes()
    with pytest.raises(RaigenError, match=message):
        review(run, ticked(run, **changes))
    for text, why in (
        ("{", "expected whole JSON"),
        ('{"format": 2, "reviewed": []}', "of format 1; got 2"),
        ("[]", "expected the file that review.html downloads"),
    ):
        path = run.dir.parent / "ticks.json"
        path.write_text(text)
        with pytest.raises(RaigenError, match=why):
            review(run, path)
    assert (run.attributes_path.read_bytes(), run.presence_path.read_bytes()) == (attributes, presence)
    assert not run.review_path.exists()


def test_a_person_ticks_and_downloads(run: Run, browser: Chrome, tmp_path: Path) -> None:
    write(run)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    html = run.sheet_path.read_text()
    assert HOSTILE not in html and not re.search(r"""(src|href)=(?!"(data:|#))""", html)
    for width in (375, 1280):
        view(browser, width)
        browser.get(run.sheet_path.resolve().as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    button, standing = browser.find_element(By.ID, "download"), browser.find_element(By.ID, "standing")
    assert not button.is_enabled() and standing.text == "0 of 3 looked at"
    boxes = browser.find_elements(By.CSS_SELECTOR, ".task .ticks input")[:7]
    looked = browser.find_elements(By.CSS_SELECTOR, ".looked")
    assert not looked[0].is_enabled()  # not before a count
    browser.find_element(By.CSS_SELECTOR, ".counted").send_keys("2", Keys.ENTER)
    keys = browser.switch_to.active_element
    assert keys == boxes[0] and keys.accessible_name.endswith("shows it")
    keys.send_keys(Keys.SPACE)
    keys.send_keys(Keys.ARROW_RIGHT)
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert boxes[1].is_selected()
    browser.switch_to.active_element.send_keys("u")
    assert boxes[0].is_selected() and not boxes[1].is_selected()
    browser.switch_to.active_element.send_keys("d")
    assert looked[0].is_selected()
    assert "You counted 2 and ticked 1" in browser.find_element(By.CSS_SELECTOR, ".differs").text
    assert button.is_enabled() and standing.text == "1 of 3 looked at"
    assert browser.find_element(By.ID, "progress").get_property("value") == 1
    button.send_keys(Keys.ENTER)
    path = tmp_path / "review.json"
    for _ in range(100):
        if path.is_file():
            break
        time.sleep(0.05)
    first = tasks(run)[0]
    shown = {sample.file: index == 0 for index, sample in enumerate(first.images)}
    assert read_ticks(run, path) == {first.attribute.neuron: shown}
    assert json.loads(path.read_text())["reviewed"][0]["counted"] == 2
    assert review(run, path)[0].neuron == first.attribute.neuron
    assert browser.get_log("browser") == []


def test_the_sheet_is_a_queue(run: Run, browser: Chrome) -> None:
    write(run)
    view(browser, 1280)
    browser.get(run.sheet_path.resolve().as_uri())

    def shown() -> list[int]:
        sections = browser.find_elements(By.CSS_SELECTOR, "main > section")
        return [place for place, section in enumerate(sections) if section.is_displayed()]

    assert shown() == [0] and browser.find_element(By.ID, "place").text == "1 of 3"
    assert not browser.find_element(By.ID, "previous").is_enabled()
    browser.find_element(By.ID, "next").click()
    assert shown() == [1]
    browser.switch_to.active_element.send_keys("3", Keys.ENTER)
    browser.switch_to.active_element.send_keys("d")
    browser.find_element(By.ID, "previous").click()
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ENTER)
    browser.execute_script("document.activeElement.blur()")
    browser.find_element(By.TAG_NAME, "body").send_keys("n")  # the second was looked at
    assert shown() == [2] and browser.find_element(By.ID, "place").text == "3 of 3"


def test_known_answers_calibrate_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    rows = ["yes,yes,a hat,"] * 9 + ["no,yes,a hat,a judge"] + ["No,0,a hat,"] * 99 + ["1,no,a hat,"]
    rows += ["yes,yes,a hat,another judge"] * 50 + ["no,no,,"] * 3 + ["yes,true,,"] * 2
    path.write_text("judged,true,label,judge\n" + "\n".join(rows))
    known = read_calibration(path)
    assert calibration_of(known, "a hat", "a judge") == Calibration(9, 10, 99, 100)
    assert calibration_of(known, "a cat", "a judge") == Calibration(2, 2, 3, 3)
    one_class = calibration_of([Known(True, True, "a hat", "")], "a hat", "a judge")
    assert one_class == Calibration(1, 1, 0, 0) and calibrated(RAW, one_class, 0.95) is None
    found = calibrated(RAW, Calibration(9, 10, 99, 100), 0.95)
    assert (found.low, found.high) == calibrated_interval(6, 300, Calibration(9, 10, 99, 100))[:2]
    assert found.mode == "calibrated" and found.hits == 6 and found.rate == pytest.approx((0.02 - 0.01) / 0.89)
    assert calibrated(RAW, Calibration(0, 0, 9, 10), 0.95) is None


def test_the_calibrated_rate_lies_in_its_interval_even_where_the_judge_is_better_than_its_calibration() -> None:
    found = calibrated(replace(RAW, hits=0, rate=0.0), Calibration(45, 50, 190, 200), 0.95)
    assert found and 0 < found.low <= found.rate < found.high


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ((9, 12, 60, 60), None),
        ((3, 3, 60, 60), "a hat: the calibrated interval is wide, because the calibration of a judge is small (images "
         "that show it: 3, that do not: 60). Add 7 or more that show it, drawn at random from the prompt's own images"),
        ((9, 12, 0, 0), "a hat: no calibrated rate, because the calibration of a judge is small (images that show it: "
         "12, that do not: 0). Add 50 or more that do not, drawn at random from the prompt's own images"),
        ((0, 0, 0, 0), "a hat: no calibrated rate, because the calibration of a judge is small (images that show it: "
         "0, that do not: 0). Add 10 or more that show it and 50 or more that do not, drawn at random from the "
         "prompt's own images"),
        ((45, 50, 180, 200), "a hat: the calibration contradicts a judge, which says yes to 6 of 300 fresh images and "
         "to 20 of 200 calibration images that do not show it. Calibrate with images drawn at random from the prompt's "
         "own"),
    ],
)  # fmt: skip
def test_a_calibration_that_cannot_be_right_says_why(known: tuple[int, ...], said: str | None) -> None:
    assert caution("a hat", RAW, Calibration(*known)) == said


def test_what_is_doubtful_about_a_calibration_is_in_the_report_and_on_the_terminal(run: Run, capsys) -> None:
    manifest = json.loads(run.manifest_path.read_text())
    manifest["stages"]["evaluate"]["facts"]["calibration_cautions"] = ["a hat: no calibrated rate"]
    write_text(run.manifest_path, json.dumps(manifest))
    assert main(["report", str(run.dir)]) == 0
    assert "a hat: no calibrated rate\n" in capsys.readouterr().out
    assert "What to doubt a hat: no calibrated rate." in text_of(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("judged\nyes", "true is missing, found judged"),
        ("judged,true\nyes,maybe", "expected yes or no; .* in line 2"),
        ("", "judged is missing, found none"),
    ],
)
def test_a_calibration_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "known.csv"
    path.write_text(text)
    with pytest.raises(RaigenError, match=message):
        read_calibration(path)
    with pytest.raises(RaigenError, match="there is no file"):
        read_calibration(tmp_path / "gone.csv")


def test_a_page_shows_every_mode_with_its_name(run: Run) -> None:
    first = run.attributes[0]
    found = replace(first, corrected=(replace(RAW, mode="calibrated"), replace(RAW, mode="checked")))
    write_text(run.attributes_path, json.dumps([asdict(a) for a in (found, *run.attributes[1:])]))
    write(run)
    card = re.findall(r"<article.*?</article>", run.report().read_text(), re.S)[0]
    assert re.findall(r'class="mode">(\w+)<', card) == ["raw", "calibrated", "checked"]
