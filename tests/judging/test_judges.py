"""Naming and judging with a vision-language model, through the stages and the command line, against a real server."""

import csv
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from raigen.cli.main import main
from raigen.config import AnnotateConfig, CaptureConfig, DiscoverConfig, EvaluateConfig, TrainConfig, address_of
from raigen.diffusion import recorded
from raigen.errors import RaigenError
from raigen.judging.annotate import annotate, answered, evidence_sheet
from raigen.judging.evaluate import evaluate, plan
from raigen.judging.fresh import FRESH_SEEDS_FROM, suggested_list
from raigen.judging.judges import NOT_KNOWN
from raigen.judging.vlm.answers import Reply
from raigen.runs.facts import EvaluateFacts
from raigen.runs.files import write_tensors, write_text
from raigen.runs.images import write_image, write_list
from raigen.runs.pixels import CAPTION, SMALL
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.world.attributes import VALUES, Attributes
from raigen.world.portraits import draw, judge, sample_attributes
from tests.support.vlm_server import Brain, image_of, question_of, serving

DOCTOR = "a photo of a doctor"
GRID = 5 * SMALL + 4 * 4
N_FRESH = 24
N_COLORS = 2  # questions about plain images, before the first one of a model


def cells(sheet: Image.Image, band: int) -> list[Image.Image]:
    """The ten images of a band of the sheet that annotators see."""
    top = band * (CAPTION + 2 * SMALL + 4) + CAPTION
    at = [(column * (SMALL + 4), top + row * (SMALL + 4)) for row in range(2) for column in range(5)]
    return [sheet.crop((x, y, x + SMALL, y + SMALL)) for x, y in at]


class SheetBrain(Brain):
    """Also names what band A shows more often than band C, by the world's judge."""

    def __call__(self, request):
        if "Band A" not in question_of(request):
            return super().__call__(request)
        sheet = image_of(request)
        with self._lock:
            shown, control = (judge(cells(sheet, band)).shows for band in (0, 2))
        best = int((shown.mean(0) - control.mean(0)).argmax())
        return json.dumps({
            "evidence": "seen", "n_showing": int(shown[:, best].sum()), "n_control": int(control[:, best].sum()),
            "attribute": VALUES[best].phrase, "suggested_prompt": "", "keywords": [VALUES[best].name],
        })  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run of drawn portraits whose discovery is done: a neuron of glasses, one of a cat, one of nothing."""
    run, rng = Run.create(tmp_path / "run"), np.random.default_rng(3)
    shown = [Attributes("doctor", glasses="glasses", hair="short hair")] * 10 + [Attributes("doctor", held="cat")] * 10
    shown += [sample_attributes(DOCTOR, rng) for _ in range(40)]
    samples = {i: write_image(run, run.images_dir, i, DOCTOR, i, draw(a, rng)) for i, a in enumerate(shown)}
    write_list(run.samples_path, samples)
    fresh = [sample_attributes(DOCTOR, rng) for _ in range(N_FRESH - 4)] + [Attributes("doctor", held="cat")] * 4
    made = {}
    for i, attributes in enumerate(fresh):
        seed = FRESH_SEEDS_FROM + i
        made[i] = write_image(run, run.fresh_dir, i, DOCTOR, seed, draw(attributes, rng))
    write_list(run.fresh_samples_path, made)
    tops = [range(10), range(10, 20), range(20, 60, 4)]
    attributes = [
        RareAttribute(rank, 7 * rank, 0.9, 0.1, 0.3, tuple(samples[i].file for i in top))
        for rank, top in enumerate(tops, 1)
    ]
    write_tensors(run.heatmaps_path, {"heatmaps": torch.rand(3, 10, 8, 8)})
    codes = np.zeros((60, 22), np.float32)
    for attribute, top in zip(attributes, tops, strict=True):
        codes[top, attribute.neuron] = np.linspace(1, 0.5, 10)
    embeddings = rng.normal(size=(60, 6)).astype(np.float32)
    write_tensors(run.codes_path, {"image_codes": torch.from_numpy(codes)})
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings))
    write_tensors(run.embeddings_path, {"embeddings": unit})
    write_text(run.attributes_path, json.dumps([attribute.__dict__ for attribute in attributes]))
    for stage, config in (("capture", CaptureConfig(DOCTOR, n_images=60)), ("train", TrainConfig()),
                          ("discover", DiscoverConfig())):  # fmt: skip
        run.begin(stage, config)
        run.finish(stage, Outcome([], {"embedder": "portraits"}), 1.0)
    return run


@pytest.fixture
def server():
    with serving(SheetBrain()) as server:
        yield server


def through(run, stage, config):
    ticks, work = [], {"annotate": annotate, "evaluate": evaluate}[stage](run, config)
    run.begin(stage, config)
    while True:
        try:
            ticks.append(next(work))
        except StopIteration as end:
            run.finish(stage, end.value, 1.0)
            return ticks, end.value.facts


def test_a_model_names_what_the_images_show(run, server):
    ticks, facts = through(run, "annotate", AnnotateConfig(annotator=server.model))
    glasses, cat, nothing = run.attributes
    name = f"m at {server.url[7:-3]}"
    assert (glasses.label, cat.label, nothing.label) == ("wearing glasses", "holding a cat", None)
    assert {a.labeled_by for a in run.attributes} == {name} == {facts["labeled_by"]}
    assert cat.keywords == ("cat",) and cat.suggested_prompt == f"{DOCTOR}, holding a cat" and cat.label_auroc is None
    assert facts["n_named"] == 2 and facts["n_unanswered"] == 0 and ticks[-1][:2] == (3, 3)
    lines = [json.loads(line) for line in run.annotations_path.read_text().splitlines()]
    assert [line["neuron"] for line in lines] == [7, 14, 21] and lines[0]["why_not"] is None
    assert lines[2]["label"] is None and "top images, fewer than 80 %" in lines[2]["why_not"]


def test_the_sheet_shows_top_images_heatmaps_and_random_ones(run, server):
    through(run, "annotate", AnnotateConfig(annotator=server.model))
    sheet = next(image_of(r) for r in server.requests if "doctor" in question_of(r))
    assert sheet.width == GRID and sheet.height == 3 * (CAPTION + 2 * SMALL + 4)
    top, tinted = (np.stack([np.asarray(cell, float) for cell in cells(sheet, band)]) for band in (0, 1))
    assert np.abs(top - tinted).mean() > 5
    question = question_of(server.requests[0])
    assert "10 pictures" in question and "10 random pictures" in question and DOCTOR in question


def test_without_activation_the_image_is_untouched():
    image = draw(Attributes("doctor"), np.random.default_rng(0))
    sheet = evidence_sheet([image] * 10, np.zeros((10, 8, 8), np.float32), [image] * 10)
    assert np.array_equal(*(np.asarray(cells(sheet, band)[3]) for band in (0, 1)))
    assert np.array_equal(np.asarray(cells(sheet, 0)[3].resize((64, 64), Image.Resampling.BOX)), np.asarray(image))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attribute": "None"}, "no identified attribute"),
        ({"n_showing": 7}, "seen in 7 of 10 top images, fewer than 80 %"),
        ({"n_showing": 11}, "seen in 11 of 10"),
        ({"attribute": "a doctor"}, "the prompt says it already"),
        ({"n_control": 9}, "as common in random images (9 of 10)"),
        ({"attribute": "x" * 81}, "the answer has more than 80 characters"),
        ({}, None),
    ],
)
def test_an_attribute_counts_only_by_the_rules(change, why):
    answer = {"evidence": "", "n_showing": 9, "n_control": 1, "attribute": "a red hat", "suggested_prompt": "",
              "keywords": []}  # fmt: skip
    reply = Reply(json.dumps(answer | change), None, "text", 0, 0)
    attribute = RareAttribute(1, 7, 0.5, 0.02, 0.1, tuple("abcdefghij"))
    named, line = answered(attribute, reply, "", address_of("scripted:x"), DOCTOR, 10)
    assert (named.label, named.labeled_by) == (None if why else "a red hat", "script x")
    assert (line["why_not"] or "").startswith(why or "") and bool(line["why_not"]) == bool(why)


@pytest.mark.parametrize("text", ["", "I cannot help", '{"attribute": "a red hat"}', None])
def test_no_answer_is_not_the_answer_that_there_is_nothing(text):
    reply = None if text is None else Reply(text, None, "text", 0, 0)
    attribute = RareAttribute(1, 7, 0.5, 0.02, 0.1, tuple("abcdefghij"))
    named, line = answered(
        attribute, reply, "no reply: gone" if text is None else "", address_of("scripted:x"), "p", 10
    )
    assert named.label is None and named.labeled_by is None and line["why_not"]


def named(run, *labels):
    """Annotates by a script: the labels in the order of the neurons, None for no attribute."""
    attributes = [asdict(a) | {"label": label} for a, label in zip(run.attributes, labels, strict=True)]
    write_text(run.attributes_path, json.dumps(attributes))
    run.begin("annotate", AnnotateConfig())
    run.finish("annotate", Outcome([], {}), 1.0)


def test_two_judges_that_see_alike_agree(run, server):
    named(run, "wearing glasses", "holding a cat", None)
    config = EvaluateConfig(n_fresh_images=N_FRESH, judge=("auto", server.model))
    ticks, facts = through(run, "evaluate", config)
    for attribute in run.attributes[:2]:
        (other,) = attribute.other_presences
        assert attribute.presence.judge == "portraits judge" and other.judge == f"m at {server.url[7:-3]}"
        assert (other.hits, other.n) == (attribute.presence.hits, attribute.presence.n)
        assert attribute.judges_alpha in (1.0, None)
    assert run.attributes[1].presence.hits >= 4 and run.attributes[1].judges_alpha == 1.0
    assert run.attributes[2].presence is None and run.attributes[2].other_presences == ()
    assert ticks[-1][:2] == (2 * N_FRESH, 2 * N_FRESH) and len(server.requests) == 2 * N_FRESH
    rows = list(csv.DictReader(run.presence_path.read_text().splitlines()))
    assert [row["judge"] for row in rows] == ["portraits judge", f"m at {server.url[7:-3]}"] * 2
    assert rows[2]["judges_alpha"] == "1.0000" and facts["n_unscored"] == {}
    assert facts["answers"] == {
        rows[1]["judge"]: {"answers": 50, "tokens_in": 5000, "tokens_out": 500, "rungs": ("json_schema",)}
    }
    lines = [json.loads(line) for line in run.judgements_path.read_text().splitlines()]
    assert len(lines) == 2 * 2 * N_FRESH and {line["confidence"] for line in lines if " at " in line["judge"]} == {0.75}


def test_what_has_no_answer_is_out_of_the_rate_and_counted_by_reason(run, server):
    named(run, "holding a cat", None, None)

    def fault(request, count, handler):
        text = {3: "", 4: "Well, yes and no.", 5: '{"evidence": "fog", "answer": "unsure"}'}.get(count)
        if count in (6, 7):
            return handler.refuse("the image is too small", 400)
        return handler.answer(text) or True if text is not None else None

    server.fault = fault
    _, facts = through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), concurrency=1))
    presence = run.attributes[0].presence
    assert (presence.n, presence.unscored) == (N_FRESH - 5, 5) and presence.hits >= 1
    name = presence.judge
    assert facts["n_unscored"] == {
        f"{name}: the judge refused to answer": 1, f"{name}: the answer cannot be read": 1,
        f"{name}: the judge is unsure": 1, f"{name}: no reply": 2,
    }  # fmt: skip
    lines = [json.loads(line) for line in run.judgements_path.read_text().splitlines()]
    unscored = [line for line in lines if line["shows"] is None]
    assert len(unscored) == 5 and all(line["why"] for line in unscored) and unscored[0]["confidence"] is None


def test_a_list_of_ones_own_is_judged_beside_what_was_found(run, server, tmp_path):
    named(run, "holding a cat", None, None)
    path = tmp_path / "mine.txt"
    path.write_text("wearing glasses\n# no hats\nholding a cat\n\na unicorn\nwearing glasses\n")
    config = EvaluateConfig(n_fresh_images=N_FRESH, judge=("portraits", server.model), attributes=str(path))
    _, facts = through(run, "evaluate", config)
    rows = list(csv.DictReader(run.presence_path.read_text().splitlines()))
    assert [(row["rank"], row["label"]) for row in rows[::2]] == [
        ("1", "holding a cat"), ("", "wearing glasses"), ("", "holding a cat"), ("", "a unicorn"),
    ]  # fmt: skip
    assert facts["n_given_attributes"] == 3
    assert rows[6]["n"] == rows[7]["n"] == "0" and facts["n_unscored"][f"portraits judge: {NOT_KNOWN}"] == N_FRESH
    assert len(server.requests) == 3 * N_FRESH  # the cat is asked about once
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    for name, message in ((empty, "has none"), (tmp_path / "gone.txt", "there is no file")):
        with pytest.raises(RaigenError, match=f"attributes: expected .*{message}"):
            through(run, "evaluate", EvaluateConfig(attributes=str(name)))


def test_the_worlds_judge_judges_only_its_world(run):
    named(run, "holding a cat", None, None)
    run.begin("capture", CaptureConfig("a photo of a dog", n_images=60))
    run.finish("capture", Outcome([], {}), 1.0)
    for stage in ("train", "discover"):
        run.begin(stage, {"train": TrainConfig(), "discover": DiscoverConfig()}[stage])
        run.finish(stage, Outcome([], {"embedder": "portraits"}), 1.0)
    run.begin("annotate", AnnotateConfig())
    run.finish("annotate", Outcome([], {}), 1.0)
    with pytest.raises(
        RaigenError, match="judge: expected clip or a vision-language model; 'portraits' can judge only"
    ):
        through(run, "evaluate", EvaluateConfig(judge=("portraits",)))


def test_the_command_line_plans_stops_and_goes_on_without_paying_twice(run, server, capsys):
    folder = str(run.dir)
    assert main(["annotate", folder, "--annotator", server.model, "--dry-run"]) == 0
    assert re.match(
        r"m at .*: 5 questions, 0 answered before, 5 calls; about [\d,]+ tokens in", capsys.readouterr().out
    )
    assert server.requests == [] and not run.answers_path.exists()
    assert main(["annotate", folder, "--annotator", server.model]) == 0
    evaluate = ["evaluate", folder, "--judge", "portraits", server.model, "--n-fresh-images", str(N_FRESH),
                "--n-suggested-images", "0"]  # fmt: skip
    assert main([*evaluate, "--max-calls", "10", "--concurrency", "2"]) == 2
    assert "max_calls: 10 calls are made. All answers are kept" in capsys.readouterr().err
    assert len(server.requests) == 3 + 8  # and two about the colors of plain images
    assert main([*evaluate, "--dry-run", "--price-in", "10", "--price-out", "0"]) == 0
    assert capsys.readouterr().out == (
        f"m at {server.url[7:-3]}: 48 questions, 8 answered before, 40 calls; about 4,000 tokens in and 400 out; "
        "cost about 0.04\n"
    )
    assert main([*evaluate, "--max-calls", "99"]) == 0
    assert len(server.requests) == 3 + 48
    before = run.presence_path.read_bytes()
    assert main([*evaluate, "--redo", "evaluate"]) == 0
    assert run.presence_path.read_bytes() == before and len(server.requests) == 3 + 48
    assert main(["annotate", folder, "--redo", "annotate"]) == 0
    assert len(server.requests) == 3 + 48
    capsys.readouterr()
    assert main(["evaluate", folder, "--n-fresh-images", "4", "--dry-run"]) == 0  # the judges are those of before
    assert ": 8 questions, 8 answered before, 0 calls; about 0 tokens in and 0 out\n" in capsys.readouterr().out


def test_a_script_stands_in_for_a_model(run, tmp_path):
    path = tmp_path / "script.jsonl"
    entries = [{"question": "Band A", "answer": {"evidence": "", "n_showing": 10, "n_control": 0, "attribute": "a hat",
                                                 "suggested_prompt": "a doctor with a hat", "keywords": ["hat"]}},
               {"question": "a hat", "answer": "no"}]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, entries)))
    through(run, "annotate", AnnotateConfig(annotator=f"scripted:{path}"))
    script = f"scripted:{path}"
    through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=(script,), n_suggested_images=0))
    assert {(a.label, a.suggested_prompt, a.labeled_by) for a in run.attributes} == {
        ("a hat", "a doctor with a hat", f"script {path}")
    }
    assert {(a.presence.hits, a.presence.n, a.presence.judge) for a in run.attributes} == {
        (0, N_FRESH, f"script {path}")
    }


def test_all_judges_share_one_budget(run, server):
    named(run, "holding a cat", None, None)
    judges = (server.model, server.model.replace("openai:m", "openai:n"))
    with pytest.raises(RaigenError, match=rf"max_calls: {N_FRESH + 6} calls are made"):
        through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=judges, max_calls=N_FRESH + 6))
    assert [r["model"] for r in server.requests].count("n") == 2 and len(server.requests) == N_FRESH + 2
    assert [r["model"] for r in server.checks] == ["m", "m", "n", "n"]


def suggest(run, cats_when_asked):
    """Labels for two neurons, one with a prompt that asks for it, of which ten images lie on the shelf: the first of
    them show a cat, the last one is black."""
    named(run, "wearing glasses", "holding a cat", None)
    asked, rng = f"{DOCTOR}, holding a cat", np.random.default_rng(5)
    attributes = [a.__dict__ | ({"suggested_prompt": asked} if a.rank == 2 else {}) for a in run.attributes]
    write_text(run.attributes_path, json.dumps(attributes))
    run.begin("annotate", AnnotateConfig())
    run.finish("annotate", Outcome([], {}), 1.0)
    shelf, made = suggested_list(run, asked), {}
    for i in range(10):
        image = draw(Attributes("doctor", **({"held": "cat"} if i < cats_when_asked else {})), rng)
        image = Image.new("RGB", image.size) if i == 9 else image
        made[i] = write_image(run, shelf.folder, i, asked, FRESH_SEEDS_FROM + i, image)
    write_list(shelf.path, made)
    return shelf


def test_how_often_an_attribute_shows_when_it_is_asked_for_stands_beside_its_rate(run, server):
    shelf = suggest(run, 6)
    _, facts = through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=("portraits", server.model)))
    glasses, cat, _ = run.attributes
    found, bare = cat.suggested, cat.presence
    assert (found.hits, found.n, found.unscored, found.judge) == (6, 9, 1, "portraits judge") and 4 <= bare.hits < 8
    assert cat.ratio.ratio == pytest.approx((6 / 9) / (bare.hits / bare.n))
    assert cat.ratio.low < cat.ratio.ratio < cat.ratio.high
    assert facts["n_unscored"] == {"portraits judge: the image is black": 1}
    assert glasses.presence and glasses.suggested is None and glasses.ratio is None  # nothing says how to ask for it
    rows = list(csv.DictReader(run.presence_path.read_text().splitlines()))
    assert [(row["label"], row["suggested_hits"], row["suggested_n"]) for row in rows] == [
        *[("wearing glasses", "", "")] * 2, *[("holding a cat", "6", "9")] * 2,
    ]  # fmt: skip
    assert float(rows[2]["ratio"]) == cat.ratio.ratio and float(rows[2]["ratio_low"]) == cat.ratio.low
    outputs = run.manifest["stages"]["evaluate"]["outputs"]
    assert {f"{shelf.folder.relative_to(run.dir).as_posix()}/{i:06d}.png" for i in range(10)} <= set(outputs)
    run.forget("evaluate")
    assert shelf.path.exists() and len(list(shelf.folder.glob("*.png"))) == 10  # other judges see the same ones


def test_nobody_is_asked_for_more_than_was_wished(run, server):
    suggest(run, 6)
    for n, more in ((10, 10), (0, 0)):
        config = EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), n_suggested_images=n)
        (found,) = plan(run, config)
        assert str(found).startswith(f"m at {server.url[7:-3]}: {2 * N_FRESH + more + N_COLORS} questions")
    through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=("portraits",), n_suggested_images=0))
    assert run.attributes[1].presence and run.attributes[1].suggested is None


def with_twelve_cats(run):
    """A neuron of twelve top images, of which the label was made from the two strongest; it fires on doctors, too."""
    cats = run.attributes[1]
    codes = run.read_tensors(run.codes_path, "discover")["image_codes"]
    codes[10:20, cats.neuron] = torch.linspace(1, 0.5, 10)
    codes[20:24, cats.neuron] = torch.linspace(0.48, 0.4, 4)
    write_tensors(run.codes_path, {"image_codes": codes})
    attributes = [a.__dict__ | ({"top_images": a.top_images[:2]} if a.rank == 2 else {}) for a in run.attributes]
    write_text(run.attributes_path, json.dumps(attributes))
    return cats.neuron


def test_a_label_is_scored_where_its_neuron_fires_and_where_it_does_not(run, server):
    neuron = with_twelve_cats(run)
    named(run, "wearing glasses", "holding a cat", None)
    judges = {"portraits": "portraits judge", server.model: f"m at {server.url[7:-3]}"}
    for model, name in judges.items():
        through(run, "evaluate", EvaluateConfig(n_fresh_images=N_FRESH, judge=(model,)))
        first, cats, nothing = [json.loads(line) for line in run.label_scores_path.read_text().splitlines()]
        assert first["why_not"] == (
            "apart from the 10 images it was named by, the neuron fires strongly in only 0 of 60, and 5 are needed: "
            "some 90 audited images would give that many, if it goes on so"
        )
        assert "auroc" not in first
        assert nothing["why_not"] == "it has no label" and nothing["clarity"] is not None
        assert (cats["neuron"], cats["judge"], cats["why_not"]) == (neuron, name, None)
        groups = [image["group"] for image in cats["pictures"]]
        assert [groups.count(group) for group in ("active", "hard", "random")] == [12, 6, 6]
        used = {f"images/{index:06d}.png" for index in (10, 11)}
        assert not used & {image["file"] for image in cats["pictures"]}
        # Eight of the twelve hold a cat: these come before all silent ones, wherever the other four do.
        assert cats["hits"] >= 8 and cats["false_hits"] <= 1 and cats["auroc"] >= 8 / 12
        assert cats["accuracy_interval"][0] < cats["balanced_accuracy"] < cats["accuracy_interval"][1]
    assert len(server.requests) == 2 * N_FRESH + 24


def test_a_label_that_does_not_hold_gives_way_to_the_next_phrase(run):
    with_twelve_cats(run)
    named(run, None, "wearing glasses", None)
    attributes = [replace(a, keywords=("wearing glasses", "holding a cat")) if a.label else a for a in run.attributes]
    run.write_attributes(attributes)
    lines = [{"neuron": a.neuron, "label": a.label, "by": "CLIP"} for a in attributes]
    write_text(run.annotations_path, "".join(json.dumps(line) + "\n" for line in lines))
    config = EvaluateConfig(n_fresh_images=N_FRESH, judge=("portraits",), n_suggested_images=0)
    for _ in range(2):  # a second evaluation begins with the annotator's label again
        through(run, "evaluate", config)
        cats = run.attributes[1]
        assert (cats.label, cats.former_label, cats.label_holds) == ("holding a cat", "wearing glasses", True)
        assert cats.suggested_prompt == f"{DOCTOR}, holding a cat" and 4 <= cats.presence.hits < 8
        scores = json.loads(run.label_scores_path.read_text().splitlines()[1])
        assert scores["label"] == "holding a cat" and scores["hits"] >= 8
        assert [(one["label"], one["holds"]) for one in scores["tries"]] == [
            ("wearing glasses", False), ("holding a cat", True),
        ]  # fmt: skip
        judged = [json.loads(line) for line in run.judgements_path.read_text().splitlines()]
        assert {line["label"] for line in judged} == {"holding a cat"}
        assert run.attributes[0].label is None and cats.covers_more is False
        run.forget("evaluate")


def test_a_label_is_scored_on_the_images_of_another_neuron_for_control(run, server):
    """A label of glasses, one of cats: each is scored on the held-out images of the other's neuron, too."""
    neuron = with_twelve_cats(run)
    glasses = run.attributes[0]
    attributes = [a.__dict__ | ({"top_images": a.top_images[:0]} if a.rank == 1 else {}) for a in run.attributes]
    write_text(run.attributes_path, json.dumps(attributes))
    named(run, "wearing glasses", "holding a cat", None)
    config = EvaluateConfig(n_fresh_images=2, judge=(server.model,))
    through(run, "evaluate", config)
    first, cats, nothing = [json.loads(line) for line in run.label_scores_path.read_text().splitlines()]
    assert first["shuffled"]["neuron"] == neuron and cats["shuffled"]["neuron"] == glasses.neuron
    assert "shuffled" not in nothing and "pictures" not in cats["shuffled"]
    assert cats["shuffled"]["n_active"] == 10 and cats["shuffled"]["hits"] == 0  # the ten with glasses hold no cat
    assert cats["balanced_accuracy"] > 0.7 and cats["shuffled"]["balanced_accuracy"] <= 0.5
    assert first["shuffled"]["n_active"] == cats["n_active"] == 12 and first["n_active"] == 10
    n_questions = 2 * 2 + 2 * (20 + 24)
    assert f": {n_questions} questions, {n_questions} answered before, 0 calls" in str(plan(run, config)[0])
    named(run, "holding a cat", "holding a cat", None)  # with no other label there is nothing to exchange
    assert f": {2 + 20 + 24} questions" in str(plan(run, config)[0])


def test_the_plan_counts_the_questions_for_the_scores(run, server):
    with_twelve_cats(run)
    named(run, "wearing glasses", "holding a cat", None)
    for n_label_images, more in ((20, 24), (10, 20), (0, 0)):
        config = EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), n_label_images=n_label_images)
        (found,) = plan(run, config)
        assert str(found).startswith(f"m at {server.url[7:-3]}: {2 * N_FRESH + more + N_COLORS} questions")
    assert server.requests == []


def test_one_evaluation_loads_the_pipeline_once(run, monkeypatch):
    """Fresh images are missing, and so are those of the suggested prompt."""
    loads, load = [], recorded.load_pipeline
    monkeypatch.setattr(recorded, "load_pipeline", lambda *args: loads.append(args) or load(*args))
    suggest(run, 6)
    stages = run.manifest["stages"]
    stages["capture"]["config"]["num_inference_steps"] = 1
    run.manifest_path.write_text(json.dumps(run.manifest | {"stages": stages}))
    config = EvaluateConfig(n_fresh_images=N_FRESH + 1, n_suggested_images=11, judge=("portraits",))
    _, facts = through(run, "evaluate", config)
    assert facts["n_fresh_images"] == N_FRESH + 1 and run.attributes[1].suggested and len(loads) == 1
    through(run, "evaluate", config)
    assert len(loads) == 1  # nothing is missing any more


def test_a_suggested_prompt_that_the_model_would_cut_is_not_drawn(run):
    """Its end names the attribute, so the images would say nothing about it."""
    long = ", very tall" * 30
    suggest(run, 6)
    attributes = run.attributes
    run.write_attributes([attributes[0], replace(attributes[1], suggested_prompt=f"a photo of a doctor{long}, a hat"),
                          *attributes[2:]])  # fmt: skip
    config = EvaluateConfig(n_fresh_images=N_FRESH, n_suggested_images=2, judge=("portraits",))
    _, facts = through(run, "evaluate", config)
    (cut,) = facts["cut_prompts"]
    assert cut.endswith("a hat") and run.attributes[1].suggested is None
    assert EvaluateFacts(cut_prompts=(cut,)).cautions[0].startswith("the image model does not read the end of “a photo")
    assert not any(cut in path.read_text() for path in run.asked_root_dir.rglob("samples.jsonl"))
