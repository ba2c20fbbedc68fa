"""The report, opened as a reader opens it: from a file, in a browser, without a network."""

import csv
import io
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import raigen.report
from raigen.errors import RaigenError
from raigen.report.formatting import q_text
from raigen.report.neuron_cards import THUMBS, data_uri, fitting
from raigen.report.page import DASH
from raigen.runs import pixels
from raigen.runs.files import write_tensors, write_text
from raigen.runs.records import Presence, Sample
from raigen.runs.run import Run
from raigen.stats import p_rarer, q_values
from tests.support.run_folder import (
    EXACT,
    HOSTILE,
    N_TOP,
    PROMPT,
    make_run,
    save,
    text_of,
    view,
    write,
    write_truth,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    write(run)
    return run


# What the file holds.


def test_the_file_asks_for_nothing_from_outside(whole: Run) -> None:
    html = whole.report().read_text()
    assert not re.search(r"""(src|href)=(?!"(data:|#|review.html"))""", html)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_hostile_texts_are_escaped(whole: Run) -> None:
    html = whole.report().read_text()
    assert HOSTILE not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script>") == 1


def test_every_aria_attribute_is_one_that_browsers_know() -> None:
    templates = Path(raigen.report.__file__).with_name("templates")
    used = {name for path in templates.glob("*.jinja") for name in re.findall(r"aria-(\w+)", path.read_text())}
    assert used <= {
        "hidden",
        "label",
        "labelledby",
        "pressed",
        "sort",
        "valuetext",
    }  # labelledby has two l, in every English


def test_what_names_a_part_is_on_the_page(whole: Run) -> None:
    html = whole.report().read_text()
    names = re.findall(r'aria-labelledby="([^"]+)"', html)
    assert names and all(f'id="{name}"' in html for name in names)


def test_the_same_run_gives_the_same_page(whole: Run) -> None:
    first = whole.report().read_bytes()
    write(whole)
    assert whole.report().read_bytes() == first


def test_ten_attributes_fit_in_three_megabytes(whole: Run) -> None:
    card = whole.report().stat().st_size / 4
    assert 10 * card < 3e6


def test_what_is_seen_neither_unasked_nor_asked_for_is_said_and_counted(whole: Run, tmp_path: Path) -> None:
    assert "Never seen, requested or not" not in text_of(whole)
    shutil.copytree(whole.dir, tmp_path / "run")
    run = Run(tmp_path / "run")
    cat = next(a for a in run.attributes if a.label == "holding a cat")
    assert cat.presence is not None and cat.presence.hits == 0
    first = replace(run.attributes[0], presence=cat.presence, suggested=replace(cat.presence, n=10))
    run.write_attributes([first, *run.attributes[1:]])
    write(run)
    text = text_of(run)
    assert "interval 0\N{EN DASH}1.2 %). One other was not seen either." in text
    assert text.count("Never seen, requested or not") == 1


def test_the_summary_says_the_numbers_in_words(whole: Run) -> None:
    text = text_of(whole)
    assert (
        "In 60 images that the model “portraits” generated for this prompt, raigen found 4 candidates for a rare "
        "attribute and could name 3. The rarest in fresh images is “holding a cat”: it was seen in none "
        "of 300 fresh images (95 % "
        "interval 0\N{EN DASH}1.2 %). Of 3 attributes that were measured, 3 are shown to be under 5 %."
    ) in text
    assert "a small test model, trained on drawn images. 3 of 4 candidates are hits, " in text


def test_a_run_without_names_and_rates_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    outcome = write(run)
    text = text_of(run)
    assert outcome.outputs[:2] == [run.report_path, run.sheet_path]
    assert "1 candidate for a rare attribute, not named yet. How often" in text
    assert "Not named yet" in text and "Presence not measured" in text and "planted" not in text


def test_a_run_that_found_nothing_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=0, until="discover")
    write(run)
    assert "raigen found no candidate for a rare attribute." in text_of(run)


def test_an_unscored_attribute_is_not_a_rare_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    nothing = Presence(0.0, 0.0, 1.0, 0, 0, 300, "mute judge", EXACT)
    write_text(run.attributes_path, json.dumps([asdict(replace(run.attributes[0], presence=nothing))]))
    write(run)
    text = text_of(run)
    assert "mute judge gave no usable answer for any of 300 images." in text
    assert "has not been measured" in text and "of fresh images show it" not in text


def test_every_judge_has_its_rate_and_no_vote_is_taken(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    first = run.attributes[0]
    other = replace(first.presence, rate=0.02, hits=6, judge="m at 127.0.0.1:8000")
    found = replace(first, other_presences=(other,), judges_alpha=0.49, labeled_by="m at 127.0.0.1:8000")
    write_text(run.attributes_path, json.dumps([asdict(found)]))
    write(run)
    text = text_of(run)
    assert re.search(r"portraits judge raw 0\.7\s%, interval", text)
    assert re.search(r"m at 127\.0\.0\.1:8000 raw 2\.0\s%, interval", text)
    assert "alpha 0.49" in text


@pytest.mark.parametrize(
    ("by", "words"),
    [("m at h", "m at h found nothing that these images share"), (None, "asked for a name gave no readable answer")],
)
def test_no_answer_and_nothing_found_are_told_apart(tmp_path: Path, by: str | None, words: str) -> None:
    run = make_run(tmp_path, n_attributes=1)
    unnamed = replace(run.attributes[0], label=None, label_auroc=None, presence=None, labeled_by=by)
    write_text(run.attributes_path, json.dumps([asdict(unnamed)]))
    write(run)
    assert words in text_of(run)


def test_a_card_shows_the_middle_of_the_range_the_histogram_and_the_neighbors(whole: Run) -> None:
    html = whole.report().read_text()
    codes = whole.read_tensors(whole.codes_path, "discover")["image_codes"].numpy()
    embeddings = whole.read_tensors(whole.embeddings_path, "discover")["embeddings"].numpy()
    for card, a in zip(re.findall(r"<article.*?</article>", html, re.S), whole.attributes, strict=True):
        middle = [int(seed) - 5000 for seed in re.findall(r"moderate image, seed (\d+)", card)]
        found = codes[middle, a.neuron]
        assert len(middle) == 5 and (np.diff(found) < 0).all() and 0.2 < found[-1] < found[0] < 0.5
        assert "fires in 26 of 60 images" in card and '<path d="M' in card
        centroids = codes[:, :300].T @ embeddings
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        near = np.argsort(-centroids @ centroids[a.neuron])[1:4]
        assert [int(n) for n in re.findall(r"strongest image of neuron (\d+)", card)] == near.tolist()


def test_a_card_shows_the_fine_neurons_within_its_own(whole: Run, tmp_path: Path) -> None:
    html = whole.report().read_text()
    first, second, third, _ = re.findall(r"<article.*?</article>", html, re.S)
    assert [len(re.findall('class="kin"', card)) for card in (first, second, third)] == [3, 1, 0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", first))  # \s takes hard spaces, too
    assert "Finer neurons within it, 3 of 4" in text and "neuron 402, " in text and "403, " not in text
    clause = (
        "neuron 400, not listed: fires clearly in 10 % of images; this neuron also fires in 90 % of these, 5.4 times"
    )
    assert re.search(f"{clause} .* That is 40 %", text)
    seeds = re.findall(r"strongest image of related neuron 400, seed (\d+)", first)
    assert seeds == [str(5000 + i) for i in range(5)]
    assert "No finer neuron clearly lies within this one." in third
    older = make_run(tmp_path, n_attributes=1, until="discover")
    older.kin_path.unlink()
    write(older)
    assert "iner neuron" not in text_of(older).split("How to read")[0]


def test_a_listed_fine_neuron_and_its_listed_parent_lead_to_each_other(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3, until="discover")
    manifest = run.manifest
    manifest["stages"]["train"]["facts"]["group_sizes"] = [30, 272]
    run.manifest_path.write_text(json.dumps(manifest))
    coarse, fine, _ = (a.neuron for a in run.attributes)  # 21, 38, 55
    shares = {"parent": coarse, "child": fine, "frequency": 0.1, "within": 0.9, "covers": 0.4, "lift": 12.3, "q": 0.0}
    lines = [{"neuron": neuron, "top_images": run.attributes[0].top_images, **shares} for neuron in (coarse, fine)]
    write_text(run.kin_path, "".join(json.dumps(line) + "\n" for line in lines))
    write(run)
    first, second, third = re.findall(r"<article.*?</article>", run.report().read_text(), re.S)
    assert f'<a href="#neuron-{fine}">rank 2</a>: fires clearly' in first and "Finer neurons within it" in first
    assert f'<a href="#neuron-{coarse}">rank 1</a>: fires clearly' in second and "The coarse neuron around it" in second
    assert "of this neuron\N{RIGHT SINGLE QUOTATION MARK}s images, 12 times as many" in second
    assert (
        "This is a fine neuron: it adds detail to the coarse ones. It does not clearly lie within any of them." in third
    )


def test_what_was_left_out_and_what_failed_is_counted(whole: Run) -> None:
    text = text_of(whole)
    assert "like one that is listed 9 " in text and "stands out too little 287 " in text
    assert "fires in fewer than 10 pictures 1 " in text and "never fires 1 " in text
    assert "verdicts are missing: portraits judge: the image cannot be read 4 " in text
    assert "verdicts are missing in the scores of labels 6 None of these counts as a “no”" in text


def test_the_name_stands_beside_what_it_rests_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    first, second, third = (a.neuron for a in run.attributes)
    lines = [
        {"neuron": first, "evidence": "A cloth <b>wound</b> round the head", "n_showing": 9, "n_top": 10,
         "n_control": 1, "n_random": 10, "why_not": None},
        {"neuron": second, "phrases": ["one", "two", "three", "four"], "auroc": [0.9, 0.8, 0.7, 0.6]},
        {"neuron": third, "why_not": "the answer cannot be read", "text": None},
    ]  # fmt: skip
    write_text(run.annotations_path, "".join(json.dumps(line) + "\n" for line in lines))
    write(run)
    text = text_of(run)
    assert "A cloth <b>wound</b> round the head Seen in 9 of 10 top images and 1 of 10 random ones." in text
    assert "“one” (AUROC 0.90), “two” (AUROC 0.80), “three” (AUROC 0.70)." in text and "four" not in text
    assert "No name: the answer cannot be read." in text


def test_a_label_has_its_score_or_the_reason_why_not(whole: Run) -> None:
    text = text_of(whole)
    score = f"balanced accuracy 0.86 (0.70{DASH}0.95), AUROC 0.90 (0.77{DASH}0.97)."
    assert "portraits judge sees it in 9 of 11 other images" in text and f"; 1 unscored: {score}" in text
    assert re.search(rf"control, .* of neuron 55: balanced accuracy 0\.47 \(0\.30{DASH}0\.60\), AUROC 0\.45", text)
    assert text.count("As a control, the same label") == 3
    assert "Not scored: it has no label." in text
    assert "clarity 0.61 (1: all alike), redundancy 0.72 (1: it has a duplicate), polysemanticity 0.13 (0: of" in text


def test_what_shows_when_it_is_asked_for_stands_beside_what_shows_unasked(whole: Run, tmp_path: Path) -> None:
    html = whole.report().read_text()
    first, _, third, fourth = re.findall(r"<article.*?</article>", html, re.S)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", first))
    assert re.search("“a photo of a doctor, wearing a turban”: 90 times as often \\(19.753\\)", text)
    assert re.search("not requested 0.7 %.*; 2 of 300, none unscored requested 60 %.*; 6 of 10, none unscored", text)
    circles = re.findall(r'<circle[^>]*cx="([\d.]+)%"', first.split('class="judged requested"')[1].split("</table>")[0])
    assert circles == ["0.667", "60.0"]  # both on one axis that ends at 100 %
    assert "at least 41 times as often" in third and "When the prompt requests" not in fourth
    row = re.search(r"<tr data-words=\"wearing a turban.*?</tr>", html, re.S)
    assert row and 'data-value="0.6"' in row[0] and re.search("&nbsp;90<", row[0])
    older = make_run(tmp_path, n_attributes=1)
    write_text(older.attributes_path, json.dumps([asdict(replace(older.attributes[0], suggested=None, ratio=None))]))
    write(older)
    assert "requested" not in text_of(older) and "When the prompt requests" not in text_of(older)


def test_given_attributes_have_a_section_with_rates_of_every_judge(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    assert "The audit did not find" not in (write(run), text_of(run))[1]
    rows = ["rank,neuron,label,rate,low,high,hits,n,unscored,judge,interval,judges_alpha"]
    rows += [",,wearing a hat,0.3,0.25,0.35,90,300,0,one,95 % Wilson,0.5"]
    rows += [",,wearing a hat,0.2,0.16,0.25,60,299,1,two,95 % Wilson,0.5"]
    write_text(run.presence_path, "".join(row + "\n" for row in rows))
    write(run)
    text = text_of(run)
    assert "1 attribute from a list. The audit did not find it" in text
    assert re.search(r"wearing a hat .*one raw 30\s%, interval 25.35\s% \(95 % Wilson\)", text)
    assert re.search(r"two raw 20\s%, .*; 60 of 299, 1 unscored and not counted .*alpha 0\.50", text)


def test_rarer_than_is_tested_over_all_that_were_judged(whole: Run) -> None:
    measured = [a.presence for a in whole.attributes if a.presence]
    expected = q_values([p_rarer(p.hits, p.n, 0.05) for p in measured])
    found = re.findall(r"rate is shown to be under 5\s% \(q (.+?), over 3 attributes\)", text_of(whole))
    assert found == [q_text(q) for q in expected]


def test_a_list_without_shown_rare_ones_says_what_is_known(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    rates = ((12, 0.02, 0.07), (13, 0.025, 0.073), (60, 0.16, 0.25))
    run.write_attributes(
        replace(a, presence=replace(a.presence, rate=hits / 300, hits=hits, low=low, high=high))
        for a, (hits, low, high) in zip(run.attributes, rates, strict=True)
    )
    write(run)
    text = text_of(run)
    assert "measured, 2 could be under 5 % (about 1,900 fresh images would decide at least half" in text
    assert "at least half of them), 1 is more frequent." in text and "none" not in text.split("measured,")[1][:120]


def test_a_name_that_other_images_deny_is_no_name(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first, second, third, fourth = run.attributes
    denied = replace(third, label_holds=False)
    run.write_attributes((replace(first, label_holds=True, covers_more=True), second, denied, fourth))
    tried = {"label": "grey hair", "hits": 1, "n": 9, "fresh_hits": 30, "fresh_n": 300, "low": 0.2,
             "confidence": 0.95, "holds": False}  # fmt: skip
    lines = [json.loads(line) for line in run.label_scores_path.read_text().splitlines()]
    lines[2]["tries"] = [tried, tried | {"fresh_hits": 0, "fresh_n": 0, "hits": 0, "confidence": 0.975}]
    lines[0]["tries"] = [tried | {"hits": 8, "low": 4.61, "holds": True}]
    write_text(run.label_scores_path, "".join(json.dumps(line) + "\n" for line in lines))
    write(run)
    text = text_of(run)
    assert "and could name 2 (1 more has a name that is not confirmed). The rarest in fresh images is “" in text
    assert f"is “{third.label}”" not in text and "Of 2 attributes that were measured" in text
    assert text.count(f"perhaps {third.label}") >= 3 and text.count("Not confirmed: ") == 1
    assert "“grey hair” shows in 1 of 9 other images in which the neuron fires strongly and in 30 of 300 fresh" in text
    assert "not significantly more often, so it does not hold (a further try, at 97.5 % confidence)." in text
    assert "in 30 of 300 fresh images: at least 4.6 times as often, so the name holds." in text
    assert text.count("The name covers more than the neuron: ") == 1
    row = re.findall(r"<tr data-words.*?</tr>", run.report().read_text(), re.S)[2]
    assert 'data-named="0"' in row and "not shown" not in row and "yes" not in row
    table = list(csv.DictReader(run.table_path.read_text().splitlines()))
    assert [(r["label"], r["perhaps"], r["covers_more"]) for r in table] == [
        (first.label, "", "1"), (second.label, "", ""), ("", third.label, ""), ("", "", ""),
    ]  # fmt: skip
    assert f"| perhaps {third.label} |" in run.card_path.read_text()
    assert f"perhaps {third.label}" in run._repr_html_()


def test_where_no_name_is_confirmed_no_rate_is_quoted(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=2)
    run.write_attributes(replace(a, label_holds=False) for a in run.attributes)
    write(run)
    text = text_of(run)
    assert "could name none (2 more have names that are not confirmed). No name is confirmed by other" in text


def test_what_is_not_shown_to_be_rare_is_said_so_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=3)
    first, second, third = run.attributes
    often = replace(second, presence=replace(second.presence, rate=0.04, hits=12, low=0.02, high=0.07))
    write_text(run.attributes_path, json.dumps([asdict(a) for a in (first, often, third)]))
    write(run)
    rows = re.findall(r"<tr data-words.*?</tr>", run.report().read_text(), re.S)
    cells = [re.findall(r'data-value="([\d.e-]+)">(?:<b>)?(yes|not shown)\b', row) for row in rows]
    expected = q_values([p_rarer(hits, 300, 0.05) for hits in (2, 12, 0)])
    assert [(float(q), words) for ((q, words),) in cells] == [
        (pytest.approx(q), "yes" if q <= 0.05 else "not shown") for q in expected
    ]
    assert [words for ((_, words),) in cells] == ["yes", "not shown", "yes"]
    text = text_of(run)
    assert "Of 3 attributes that were measured, 2 are shown to be under 5 %, 1 could be under 5 % (about " in text
    assert "1,900 fresh images would decide it)." in text
    assert text.count("rate is not shown to be under 5") == 1


def test_every_word_of_the_trade_is_explained(whole: Run) -> None:
    body, reading = re.split("How to read this page", text_of(whole))[-2:]
    for word in ("AUROC", "Clopper-Pearson", "q"):
        assert re.search(rf"\b{word}\b", body), f"{word} is not on the page"
    for word in ("AUROC", "Clopper-Pearson", "Wilson", "q says how strong", "two-sided detection score", "raw,",
                 "Rare and distinct (minority score)", "Similar images", "When requested"):  # fmt: skip
        assert word in reading
    first = body.index("AUROC")
    assert body[first:].startswith("AUROC: how well two kinds of images are separated")
    assert "Estimated from similarity among the 60 audited images" in body and "the rate to quote" in body


@pytest.mark.parametrize("noise", [0, 40])
def test_fifty_neurons_with_photographs_stay_below_ten_megabytes(tmp_path: Path, noise: int) -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(12):
        soft = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize((512, 512), Image.Resampling.BICUBIC)
        grain = rng.normal(0, noise, (512, 512, 3))
        images.append(Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)))
    run = Run.create(tmp_path / "run")
    samples = []
    for index, image in enumerate(images):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=0)
        samples.append(save(run, Sample(index, PROMPT, index, f"images/{index}.png", ""), buffer.getvalue()))
    n_images = 50 * (10 + 10 + 5 + 3 + 15 + 2)
    thumbs = fitting(run, samples, n_images)
    size = sum(len(data_uri(image, thumbs)) for image in images) / len(images) * n_images
    overlay = pixels.heatmap_overlay(rng.random((8, 8)), (64, 64), 1.0)
    assert size + 500 * len(data_uri(overlay, THUMBS[0])) < 10e6
    assert fitting(run, samples, 40) == THUMBS[0]


def test_controls_are_random_images_that_are_not_among_the_top(whole: Run) -> None:
    html = whole.report().read_text()
    cards = re.findall(r"<article.*?</article>", html, re.S)
    assert len(cards) == 4
    for card in cards:
        top = re.findall(r"strongest image, seed (\d+)", card)
        control = re.findall(r"random image, seed (\d+)", card)
        assert len(top) == len(control) == 10 and not set(top) & set(control)


def test_large_images_become_thumbnails(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    samples = []
    for sample in run.samples():
        buffer = io.BytesIO()
        Image.open(run.dir / sample.file).resize((400, 200)).save(buffer, "PNG", compress_level=1)
        samples.append(save(run, sample, buffer.getvalue()))
    write_text(run.samples_path, "".join(json.dumps(s._asdict()) + "\n" for s in samples))
    assert write(run).facts["bytes"] < 350_000
    assert 'class="images pixels"' not in run.report().read_text()


def test_heatmaps_of_another_run_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1, until="discover")
    write_tensors(run.heatmaps_path, {"heatmaps": torch.zeros(2, N_TOP, 8, 8)})
    with pytest.raises(RaigenError, match=r"expected heatmaps of 1 neurons x 10 images.*--redo discover"):
        write(run)


def test_the_truth_of_another_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_attributes=1)
    write_truth(run, [replace(run.attributes[0], neuron=9)])
    with pytest.raises(RaigenError, match=r"truth\.json: expected the neurons of attributes\.json"):
        write(run)


# What a browser makes of it.


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
    assert {o.value_of_css_property("opacity") for o in overlays} == {"0"}
    assert page.find_element(By.ID, "overlay-value").text == "on pointing"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert {o.value_of_css_property("opacity") for o in overlays} == {"0.05"}
    assert page.find_element(By.ID, "overlay-value").text == "5 %"


def test_a_heatmap_shows_only_over_the_image_at_which_one_points(page: Chrome) -> None:
    first, second = page.find_elements(By.CSS_SELECTOR, "article .image")[:2]
    ActionChains(page).move_to_element(first).perform()
    shown = [
        image.find_element(By.CSS_SELECTOR, ".overlay").value_of_css_property("opacity") for image in (first, second)
    ]
    assert shown == ["0.7", "0"]
    page.execute_script("arguments[0].focus({focusVisible: true})", second)
    assert second.find_element(By.CSS_SELECTOR, ".overlay").value_of_css_property("opacity") == "0.7"


def test_an_overlay_covers_its_image(page: Chrome) -> None:
    base, overlay = page.find_elements(By.CSS_SELECTOR, "article .image:first-child img")[:2]
    assert base.rect == overlay.rect and base.rect["width"] == 128


def test_the_table_sorts_both_ways(page: Chrome) -> None:
    def ranks() -> list[str]:
        return [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".ranking tbody td:first-child")]

    button = page.find_element(By.XPATH, "//button[text()='In fresh images']")
    button.send_keys(Keys.ENTER)
    assert ranks() == ["3", "2", "1", "4"]  # what was not measured stays last
    button.send_keys(Keys.ENTER)
    assert ranks() == ["1", "2", "3", "4"]
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"


def test_the_filter_leaves_the_rows_that_fit(page: Chrome) -> None:
    def ranks() -> list[str]:
        rows = page.find_elements(By.CSS_SELECTOR, ".ranking tbody tr")
        return [row.find_element(By.TAG_NAME, "td").text for row in rows if row.is_displayed()]

    words, count = page.find_element(By.ID, "filter"), page.find_element(By.ID, "filter-count")
    assert words.accessible_name == "Show only" and count.text == "4 of 4 rows"
    words.send_keys("CAT cloth")  # in the name, and among the keywords
    assert ranks() == ["3"] and count.text == "1 of 4 rows"
    words.clear()
    words.send_keys(" ", Keys.ENTER)  # sends nothing anywhere
    assert ranks() == ["1", "2", "3", "4"]
    page.find_element(By.ID, "only-named").send_keys(Keys.SPACE)
    assert ranks() == ["1", "2", "3"]
    assert page.get_log("browser") == []


def test_a_pin_shows_its_attribute_on_focus_and_leads_to_it(page: Chrome) -> None:
    pin = page.find_elements(By.CSS_SELECTOR, ".pin")[1]
    tip = pin.find_element(By.CSS_SELECTOR, ".tip")
    assert not tip.is_displayed()
    page.find_elements(By.CSS_SELECTOR, ".pin")[0].send_keys(Keys.TAB)
    assert page.switch_to.active_element == pin and tip.is_displayed() and HOSTILE in tip.text
    pin.send_keys(Keys.ENTER)
    assert page.current_url == pin.get_attribute("href")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A report in which five candidates share one place in the overview."""
    run = make_run(tmp_path_factory.mktemp("runs") / "crowded", n_attributes=6)
    listed = {a.neuron for a in run.attributes[:5]}
    rows = list(csv.DictReader(run.neurons_path.read_text().splitlines()))
    moved = [
        row | ({"frequency": 0.01, "distinctiveness": 0.3} if int(row["neuron"]) in listed else {}) for row in rows
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(moved)
    write_text(run.neurons_path, text.getvalue())
    write(run)
    return run


@pytest.mark.parametrize("width", [375, 1280])
def test_candidates_that_coincide_can_all_be_pointed_at(browser: Chrome, crowded: Run, width: int) -> None:
    view(browser, width)
    browser.get(crowded.report().resolve().as_uri())
    reached = browser.execute_script("""
        return [...document.querySelectorAll('.pin')].map((pin) => {
            pin.scrollIntoView({block: 'center'});
            const box = pin.getBoundingClientRect();
            const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return hit !== null && hit.closest('.pin') === pin;
        });""")
    assert reached == [True] * 6
    assert len(browser.find_elements(By.CSS_SELECTOR, ".aside .true")) == 5
    assert (crowded.figures_dir / "overview.svg").read_text().count('class="true"') == 5
    for pin in browser.find_elements(By.CSS_SELECTOR, ".pin"):
        browser.execute_script("arguments[0].focus({focusVisible: true})", pin)
        assert pin.find_element(By.CSS_SELECTOR, ".tip").is_displayed()
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [375, 800, 1280])
def test_nothing_overflows_sideways(page: Chrome, width: int) -> None:
    view(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_is_dark_for_those_who_want_it_dark(page: Chrome) -> None:
    def shades() -> tuple[int, int]:
        body = page.find_element(By.TAG_NAME, "body")
        paper, ink = (body.value_of_css_property(name) for name in ("background-color", "color"))
        return int(re.findall(r"\d+", paper)[0]), int(re.findall(r"\d+", ink)[0])

    assert shades()[0] > 240 and shades()[1] < 40
    view(page, 1280, scheme="dark")
    assert shades()[0] < 40 and shades()[1] > 220


def test_every_part_has_a_name_and_every_id_is_unique(page: Chrome) -> None:
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.execute_script("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert {target.removeprefix("#") for target in targets} <= {*ids, "review.html"}
    assert page.execute_script("return [...document.images].every(i => i.hasAttribute('alt'))")
    assert page.find_element(By.ID, "overlay").accessible_name == "Where the neuron fires"


def test_it_prints_without_its_controls(page: Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.find_element(By.ID, "overlay").is_displayed()
    assert page.find_element(By.CSS_SELECTOR, ".overlay").value_of_css_property("opacity") == "0"
    assert not page.find_element(By.ID, "explore").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
