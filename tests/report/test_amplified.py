"""What the report shows of amplification: curves, strips, drift, cost, the causal verdict; on a page and in files."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from raigen.errors import RaigenError
from raigen.report.amplified import N_SEEDS, cheapest_of, drift_of, point_of, strips_of, with_q
from raigen.report.pareto import pareto
from raigen.runs.files import write_text
from raigen.runs.run import Run
from tests.support.amplified_run import N, bring_out
from tests.support.run_folder import make_run, text_of, view, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    bring_out(run)
    write(run)
    return run


def entries_of(run: Run, rank: int) -> list[dict]:
    found = [json.loads(path.read_text()) for path in run.amplifications()]
    return [entry for entry in found if entry.get("rank") == rank]


# The chart.


def test_a_point_stands_where_its_fidelity_and_presence_are(whole: Run) -> None:
    entries = entries_of(whole, 1)
    chart = pareto(entries)
    assert chart is not None
    assert [line.method for line in chart.lines] == ["steer", "prompt", "select", "random-direction", "random-neuron"]
    assert [line.is_control for line in chart.lines] == [False] * 3 + [True] * 2
    assert (chart.base.left, chart.x_marks[0].text) == (100, "1") and chart.y_marks[-1].text == "100 %"
    entry = next(entry for entry in entries if entry["method"] == "steer")
    step = 1 - float(chart.x_marks[1].text)
    width = 100 - chart.x_marks[1].at  # percent of the chart for that step
    for dot, point in zip(chart.lines[0].dots, entry["points"], strict=True):
        assert dot.top == pytest.approx(100 - 100 * point["presence"]["rate"], abs=0.01)
        assert dot.left == pytest.approx(100 - (1 - point["fidelity"]["mean"]) / step * width, abs=0.01)
        assert dot.x_ends[0] < dot.left < dot.x_ends[1] and dot.y_ends[0] > dot.top > dot.y_ends[1]
        assert f"of {N} show it" in dot.title
    assert chart.lines[0].path[0] == (chart.base.left, chart.base.top)  # strength 0 is where the line begins
    assert [dot.text for dot in chart.lines[0].dots][-1] == "2" and chart.lines[2].dots[0].text == "1 of 66"


def test_what_no_judge_could_judge_is_in_no_chart(whole: Run) -> None:
    nothing = {"rate": 0.0, "low": 0.0, "high": 1.0, "hits": 0, "n": 0, "unscored": N}
    (entry,) = [entry for entry in entries_of(whole, 1) if entry["method"] == "steer"]
    points = [entry["points"][0], entry["points"][1] | {"presence": nothing}]
    chart = pareto([entry | {"points": points}])
    assert chart is not None and [dot.text for dot in chart.lines[0].dots] == ["0.5"]
    assert pareto([entry | {"base": entry["base"] | {"presence": nothing}}]) is None


def test_turning_down_goes_to_the_other_side_of_the_unsteered_images(whole: Run) -> None:
    (entry,) = [entry for entry in entries_of(whole, 3) if entry["method"] == "steer"]
    down = entry["points"][0] | {"strength": -1.0}
    chart = pareto([entry | {"points": [down, *entry["points"]]}])
    assert chart is not None
    (line,) = chart.lines
    assert line.path[1] == (chart.base.left, chart.base.top) and len(line.path) == 3
    assert line.dots[0].title.startswith("steering, \N{MINUS SIGN}1:")


# What is chosen to be shown.


def test_strips_are_of_the_same_first_seeds_and_hold_the_strongest(whole: Run) -> None:
    strips = strips_of(entries_of(whole, 1))
    names = {tuple(file.rpartition("/")[2] for file in strip.files) for strip in strips}
    assert names == {tuple(f"{index:06d}.png" for index in range(N_SEEDS))}
    assert {"unsteered", "steering, 2", "random neuron, 2"} < {strip.name for strip in strips}
    assert not [strip for strip in strips if "selection" in strip.name]  # other seeds
    (entry,) = [entry for entry in entries_of(whole, 1) if entry["method"] == "steer"]
    many = [entry["points"][0] | {"strength": float(strength)} for strength in range(1, 10)]
    texts = [strip.name for strip in strips_of([entry | {"points": many}])]
    assert texts == ["unsteered", "steering, 1", "steering, 4", "steering, 6", "steering, 9"]


def test_drift_stands_at_the_point_that_brings_most_and_controls_at_that_strength(whole: Run) -> None:
    entries = entries_of(whole, 1)
    drift = drift_of(entries)
    chosen = {entry["method"]: point_of(entry, entries)["strength"] for entry in entries}
    assert chosen == {"steer": 2, "prompt": 1, "select": 66, "random-direction": 2, "random-neuron": 2}
    rows = {row["label"]: row for row in drift["moved"]}
    assert len(rows) + len(drift["still"]) == 14 and len(rows) >= 5
    point = next(point_of(entry, entries) for entry in entries if entry["method"] == "prompt")
    place = [column["name"] for column in drift["columns"]].index("suggested prompt")
    for move in point["off_target"]:
        cells = [row["cells"] for row in (*rows.values(), *drift["still"]) if row["label"] == move["label"]]
        assert cells[0][place] == move
    assert drift["n_moved"] == sum(min(cell["q"] for cell in row["cells"]) <= 0.05 for row in rows.values())


def test_no_image_is_counted_at_a_strength_that_it_helped_to_choose(whole: Run) -> None:
    (entry,) = [entry for entry in entries_of(whole, 1) if entry["method"] == "steer"]

    def at(strength: float, first: int, second: int, n: int = 100) -> dict:
        halves = [{"hits": first, "n": n}, {"hits": second, "n": n}]
        counts = {"hits": first + second, "n": 2 * n, "rate": (first + second) / 2 / n}
        presence = entry["points"][0]["presence"] | counts
        return entry["points"][0] | {"strength": strength, "halves": halves, "presence": presence, "n_made": 2 * n}

    lucky = entry | {"points": [at(1, 50, 30), at(2, 40, 60)]}
    best = cheapest_of([lucky])
    assert best and (best["strength"], best["presence"].hits, best["presence"].n) == ("1", 30, 100)
    assert best["cost"] == pytest.approx(100 / 30) and best["chosen_on"] == "half" and best["presence"].high < 0.41
    assert point_of(lucky, [lucky])["strength"] == 1
    small = entry | {"points": [at(1, 10, 4, n=20), at(2, 8, 12, n=20)]}
    best = cheapest_of([small])
    assert best and (best["strength"], best["presence"].hits, best["chosen_on"]) == ("2", 20, "all")
    old = entry | {"points": [{k: v for k, v in point.items() if k != "halves"} for point in lucky["points"]]}
    assert cheapest_of([old])["chosen_on"] == "all" and point_of(old, [old])["strength"] == 2
    alone = cheapest_of([entry | {"points": [at(1, 50, 30)]}])
    assert alone["presence"].hits == 80 and alone["chosen_on"] == "nothing"


def test_changes_are_corrected_for_all_methods_and_strengths() -> None:
    def entry(*p_values: float) -> dict:
        return {"points": [{"off_target": [{"label": "a hat", "p": p, "q": p}]} for p in p_values]}

    found = [point["off_target"][0]["q"] for each in with_q([entry(0.02, 0.5), entry(0.9)]) for point in each["points"]]
    assert found == pytest.approx([0.06, 0.75, 0.9])


# The page.


def test_the_page_says_cost_controls_drift_and_the_verdict(whole: Run) -> None:
    text = text_of(whole).replace("\xa0", " ")
    assert "Amplified" in text and "random direction control" in text
    points = [point for entry in entries_of(whole, 1) for point in entry["points"] if point["strength"] == 1]
    other = next(point["halves"][1] for point in points if point["presence"]["rate"] > 0.8)
    cost = other["n"] / other["hits"]
    assert "chosen on one half of the seeds; these numbers come from the other half" in text
    assert re.search(
        rf"The cheapest method is suggested prompt, 100 %: .* It takes {cost:.1f} images for each wanted one", text
    )
    first, third = (whole.attributes[place].causal for place in (0, 2))
    assert first and third and not first.correlates_only and third.correlates_only
    assert re.search(r"\bcausal Steering at strength 2: .* show it, significantly more than under all", text)
    assert (
        re.search(rf"against unsteered\s*\+{100 * first.gain.difference:.0f}\s+points", text)
        and "against the strongest of 19 random neurons" in text
    )
    assert (
        re.search("correlates only Steering at strength 2: .* show it, not significantly more", text)
        and "not tried" in text
    )
    assert "a photo of a doctor, wearing a turban 30 %" in text
    assert "changed significantly" in text and "unless it passed the steering test" in text


def test_results_of_another_name_are_counted_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    bring_out(run)
    entries = json.loads(run.attributes_path.read_text())
    entries[2]["label"] = "something else"
    write_text(run.attributes_path, json.dumps(entries))
    write(run)
    text = text_of(run)
    assert "4 results are not shown" in text and "A mixture" not in text
    assert len(re.findall(r'aria-labelledby="amplified-\d', run.report().read_text())) == 1


def test_a_run_without_amplification_has_no_such_part(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    write(run)
    text = text_of(run)
    assert "Amplified" not in text and "steered" not in text and "A neuron that fires for something has" in text
    assert not list(run.figures_dir.glob("pareto-*"))


def test_where_a_strength_broke_and_what_a_recipe_had_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    bring_out(run)
    path = run.amplification_path(f"{run.attributes[0].neuron}-steer")
    entry = json.loads(path.read_text())
    entry["stopped"] = {"strength": 8.0, "why": "makes black images", "last_good": 2.0}
    entry["recipe"] |= {"neurons": [21, 4, 7], "steps": [2, 5], "every_branch": True, "mask": "0" * 64}
    path.write_text(json.dumps(entry))
    write(run)
    said = "with neurons 4, 7 steered by the same strength; in steps 2 to 5 only; in every branch of the guidance"
    assert f"steering: {said}; within a mask; strength 8 makes black images, the last good one is 2." in text_of(run)


def test_a_damaged_image_is_told_with_what_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    bring_out(run)
    file = run.dir / entries_of(run, 1)[0]["points"][0]["files"][1]
    file.write_bytes(b"no image")
    with pytest.raises(RaigenError, match=r"000001\.png .* Make it again with: the same amplify command"):
        write(run)


def test_it_opens_without_complaints_and_shows_every_image(page: Chrome) -> None:
    assert page.get_log("browser") == []
    broken = page.execute_script("return [...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    assert len(page.find_elements(By.CSS_SELECTOR, ".strip img")) == N_SEEDS * (8 + 4)
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.find_element(By.CSS_SELECTOR, "#amplified details summary").click()
    assert page.find_element(By.CSS_SELECTOR, "details .drift").is_displayed()


def test_the_marks_of_the_figure_lie_inside_it_and_on_their_lines(page: Chrome) -> None:
    plot = page.find_element(By.CSS_SELECTOR, ".pareto > svg").rect
    marks = page.find_elements(
        By.CSS_SELECTOR, "#amplified article:first-of-type .pareto > svg > .marker > :last-child"
    )
    assert len(marks) == 1 + 3 + 2 + 1 + 3 + 3
    for mark in marks:
        x, y = mark.rect["x"] + mark.rect["width"] / 2, mark.rect["y"] + mark.rect["height"] / 2
        assert (
            plot["x"] - 2 <= x <= plot["x"] + plot["width"] + 2 and plot["y"] - 2 <= y <= plot["y"] + plot["height"] + 2
        )


def test_the_gain_sorts_the_table(page: Chrome) -> None:
    button = page.find_element(By.XPATH, "//button[text()='Gain when steered']")
    button.click()
    button.click()
    ranks = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".ranking tbody td:first-child")]
    assert ranks == ["1", "3", "2", "4"]  # what was not tried stays last


@pytest.mark.parametrize("width", [375, 800, 1280])
def test_nothing_overflows_sideways(page: Chrome, width: int) -> None:
    view(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


# The files beside it.


def test_every_figure_is_a_file_that_a_browser_draws(browser: Chrome, whole: Run) -> None:
    names = {path.stem for path in whole.figures_dir.glob("*")}
    neurons = [attribute.neuron for attribute in whole.attributes]
    brought = {f"pareto-{neurons[place]}" for place in (0, 2)}
    assert names == {"overview", "presence", *(f"fires-{neuron}" for neuron in neurons), *brought}
    for path in whole.figures_dir.glob("*.svg"):
        root = ElementTree.fromstring(path.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "url(" not in path.read_text()
        assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
        image = Image.open(path.with_suffix(".png"))
        assert image.size == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))
        assert image.convert("RGB").getcolors(maxcolors=10) is None  # more than a blank sheet
    dots = ElementTree.fromstring((whole.figures_dir / "overview.svg").read_text()).iter(
        "{http://www.w3.org/2000/svg}circle"
    )
    assert len(list(dots)) == 300  # all that were scored: dots and pins
    browser.get((whole.figures_dir / f"pareto-{neurons[0]}.svg").resolve().as_uri())
    assert browser.get_log("browser") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".marker")) == 13 + 6  # and the key


def test_figures_of_an_earlier_report_go(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    write_text(run.figures_dir / "pareto-999.svg", "<svg/>")
    write_text(run.figures_dir / "pareto-999.png", "")
    outputs = write(run).outputs
    assert sorted(run.figures_dir.iterdir()) == sorted(path for path in outputs if path.parent == run.figures_dir)


def test_the_table_and_the_card_hold_the_causal_score(whole: Run) -> None:
    rows = list(csv.DictReader(whole.table_path.read_text().splitlines()))
    first, second, third, fourth = whole.attributes
    assert [row["correlates_only"] for row in rows] == ["0", "", "1", ""]
    assert first.causal and float(rows[0]["causal_gain"]) == first.causal.gain.difference
    assert float(rows[0]["causal_over_neuron_low"]) == first.causal.over_neuron.low
    assert rows[0]["rate"] == str(first.presence.rate if first.presence else "") and rows[3]["rate"] == ""
    assert (rows[1]["label"], rows[3]["label"]) == (second.label, fourth.label or "") and third.causal
    card = whole.card_path.read_text()
    assert "- wearing a turban: causal; shown by" in card and "- holding a cat: correlates only; shown by" in card


def test_the_table_is_parquet_too(whole: Run) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(whole.table_path.with_suffix(".parquet")).to_pylist()
    assert [row["correlates_only"] for row in found] == [0, None, 1, None]


def test_what_is_written_anew_is_outdated_until_then(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    write(run)
    config = run.config.report
    assert run.is_done("report", config)
    run.outdate("report")
    assert not run.is_done("report", config) and run.report_path.is_file()
    fresh = make_run(tmp_path / "b", n_attributes=1)
    fresh.outdate("report")  # nothing to outdate
    assert "report" not in fresh.manifest["stages"]
