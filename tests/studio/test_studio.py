"""The studio on a tiny real pipeline, without its page: twins, gallery, recipes that are measured, neurons by hand."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import raigen
from raigen.amplification.recipes import SavedRecipe, Turned
from raigen.auditing.audit import run_stage
from raigen.cli.main import main
from raigen.config import AmplifyConfig, StudioConfig
from raigen.errors import RaigenError
from raigen.judging.by_hand import list_by_hand
from raigen.report.amplified import read_amplified
from raigen.runs.images import as_png
from raigen.runs.run import Run
from raigen.studio.gallery import Gallery, Kept, save_recipe
from raigen.studio.neurons import reasons, strongest_images, unlisted
from raigen.studio.session import Studio
from tests.support.tiny_audit import tiny_audit

PROMPT, JUDGE = "a photo of a doctor", "python:tests.support.bright_judge:shows"


@pytest.fixture(scope="module")
def finished(sd_folder, clip_folder, tmp_path_factory):
    """A finished audit of the tiny model with two named attributes."""
    run = tiny_audit(PROMPT, sd_folder, clip_folder, tmp_path_factory.mktemp("runs") / "run", n_images=50,
                     n_attributes=2, judge=JUDGE, min_images=5)  # fmt: skip
    named = zip(run.attributes, ("a bright sky", "a cat"), strict=True)
    run.write_attributes([replace(attribute, label=label) for attribute, label in named])
    return run


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.dir, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def studio(run):
    return Studio(run, StudioConfig(device="cpu"))


def pixels_of(run, file):
    return np.asarray(Image.open(run.dir / file)).astype(int)


def half(white_left=True):
    gray = Image.new("L", (16, 16))
    gray.paste(255, (0, 0, 8, 16) if white_left else (8, 0, 16, 16))
    return as_png(gray)


def test_twins_share_their_seed_and_amplify_makes_none_of_them_again(run, studio, monkeypatch):
    first, second = (attribute.neuron for attribute in studio.listed)
    recipe = studio.recipe([Turned(first, 1.0), Turned(second, 0.0)])
    assert recipe.turned == (Turned(first, 1.0, "a bright sky"),)
    pairs = list(studio.pairs(recipe, [0, 3]))
    assert [(pair.number, pair.seed) for pair in pairs] == [(0, 2_000_000_000), (3, 2_000_000_003)]
    for pair in pairs:
        assert not np.array_equal(pixels_of(run, pair.unsteered), pixels_of(run, pair.steered))
        assert -1 <= pair.fidelity < 1 and [shown.label for shown in pair.shown] == ["a bright sky"]
    assert "bright_judge:shows" in studio.judge and studio.renderer.pipe is studio.renderer.pipe
    (entry,) = raigen.amplify(run, attribute=1, strength=(1,), n_images=4, device="cpu", judge=JUDGE)
    assert [entry["base"]["files"][n] for n in (0, 3)] == [pair.unsteered for pair in pairs]
    assert [entry["points"][0]["files"][n] for n in (0, 3)] == [pair.steered for pair in pairs]
    monkeypatch.setattr("raigen.amplification.rendering.generate", None)  # all of it is there
    assert list(studio.pairs(recipe, [0, 3])) == pairs


def test_the_judge_is_that_of_the_evaluation_and_sees_both_twins(run, studio):
    (pair,) = studio.pairs(studio.recipe([Turned(studio.listed[0].neuron, 4.0)]), [0])
    means = [pixels_of(run, file).mean() for file in (pair.unsteered, pair.steered)]
    from tests.support.bright_judge import shows

    images = [Image.open(run.dir / file) for file in (pair.unsteered, pair.steered)]
    answers = [answer[0] if isinstance(answer, tuple) else answer for answer in shows(images, "a bright sky")]
    assert [pair.shown[0].before, pair.shown[0].after] == [bool(answer) for answer in answers] and means[0] != means[1]


@pytest.mark.parametrize("method", ["steer", "set"])
def test_several_neurons_within_a_mask_and_some_steps(run, studio, method):
    turned = [Turned(attribute.neuron, far) for attribute, far in zip(studio.listed, (2.0, -1.0), strict=True)]
    how = {"method": method, "steps": (1, 2), "every_branch": True}
    everywhere, left, right = (
        next(studio.pairs(studio.recipe(turned, mask=mask, **how), [1])) for mask in (None, half(), half(False))
    )
    images = [pixels_of(run, pair.steered) for pair in (everywhere, left, right)]
    assert len({image.tobytes() for image in images}) == 3
    noted = json.loads((run.dir / left.steered).with_name("recipe.json").read_text())["recipe"]
    assert noted["strengths"] == [2.0, -1.0] and noted["steps"] == [1, 2] and noted["every_branch"]
    assert left.unsteered == everywhere.unsteered


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda studio: studio.recipe([Turned(studio.listed[0].neuron, 0.0)]), "expected a strength other than 0"),
        (lambda studio: studio.recipe([Turned(3, 1.0), Turned(3, 2.0)]), "expected each neuron once"),
        (lambda studio: studio.recipe([Turned(160, 1.0)]), "expected numbers from 0 to 159; got 160"),
        (lambda studio: studio.recipe([Turned(3, 1.0)], steps=(2, 5)), "denoising step from 0 to 4"),
        (lambda studio: studio.recipe([Turned(3, 1.0)], mask=b"no"), "the one of the recipe cannot be read"),
        (lambda studio: next(studio.pairs(one(studio), [])), "expected 1 to 64 of them"),
        (lambda studio: next(studio.pairs(one(studio), [-1])), "from number 0 on"),
        (lambda studio: next(studio.pairs(replace(one(studio), sae="another"), [0])), "belong to another autoencoder"),
    ],
)
def test_what_cannot_be_made_is_one_clear_error(studio, ask, message):
    with pytest.raises(RaigenError, match=message):
        ask(studio)


def one(studio):
    return studio.recipe([Turned(studio.listed[0].neuron, 1.0)])


def test_a_stopped_request_keeps_what_was_made(run, studio):
    recipe, gallery = one(studio), Gallery(run)
    entry = Kept.begun(recipe)
    for pair in studio.pairs(recipe, range(3)):
        entry = replace(entry, pairs=(*entry.pairs, pair))
        gallery.keep(entry)
        if len(entry.pairs) == 2:
            break  # as a click on Stop does
    with run.locked():  # nobody holds the run
        later = replace(Kept.begun(recipe), pairs=())
    gallery.keep(later)
    assert gallery.entries() == [later, entry] and "a bright sky +1 · 2 images" in entry.title
    gallery.drop(later.name)
    assert gallery.entries() == [entry]
    with pytest.raises(RaigenError, match="expected the number of an entry"):
        gallery.drop("../../run")


def test_a_recipe_is_measured_on_many_seeds(run, studio, capsys):
    first, second = (attribute.neuron for attribute in studio.listed)
    recipe = studio.recipe([Turned(first, 1.0), Turned(second, -0.5)], steps=(0, 3), mask=half())
    path = save_recipe(run, recipe, "sky without cat")
    assert SavedRecipe.read(path) == recipe and path.name == "sky-without-cat.json"
    (pair,) = studio.pairs(recipe, [0])
    command = ["amplify", str(run.dir), "--recipe", str(path), "--n-images", "3", "--device", "cpu", "--judge", JUDGE]
    assert main([*command, "--strength", "1,2"]) == 0
    entries = [json.loads(found.read_text()) for found in run.amplifications()]
    assert sorted(entry["neuron"] for entry in entries) == sorted([first, second])
    for entry in entries:
        assert entry["method"] == "recipe" and entry["recipe"]["strengths"] == [1.0, -0.5]
        assert [point["strength"] for point in entry["points"]] == [1, 2] and "recipe" not in entry["setup"]
        assert entry["points"][0]["files"][0] == pair.steered
    assert entries[0]["points"][1]["files"] == entries[1]["points"][1]["files"]
    made = [
        json.loads(found.read_text())["recipe"]["strengths"] for found in run.dir.glob("amplified/recipe/*/recipe.json")
    ]
    assert sorted(made) == [[1.0, -0.5], [2.0, -1.0]]
    note = f"recipe: contrast of {first} by 1, {second} by -0.5; in steps 0 to 3 only; within a mask"
    assert note in run.report().read_text()
    other = save_recipe(run, studio.recipe([Turned(first, 3.0)]), "another")
    raigen.amplify(run, recipe=str(other), n_images=2, device="cpu", judge=JUDGE)
    assert len(read_amplified(run, run.attributes).curves[0][1]) == 2  # beside the first recipe of this attribute


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda entry: entry | {"turned": []}, "no neurons with finite strengths"),
        (lambda entry: entry | {"method": "prompt"}, "format 1, method prompt"),
        (lambda entry: entry | {"turned": [{"neuron": 3}]}, "'strength' is missing"),
        (lambda entry: entry | {"mask": "%"}, "a recipe that this raigen knows"),
        (lambda entry: {"neuron": 3}, "expected a JSON object with format, sae, method, turned"),
        (lambda entry: entry | {"turned": [{"neuron": 159, "strength": 1}]}, r"\(159\) is listed with a name"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_clear_error(run, studio, spoil, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(spoil(one(studio).as_json())))
    with pytest.raises(RaigenError, match=message):
        raigen.amplify(run, recipe=str(path), n_images=2, device="cpu", judge=JUDGE)


@pytest.mark.parametrize("also", [{"method": "steer"}, {"steps": (0, 1)}, {"mask": "m.png"}, {"also": 4}])
def test_a_recipe_says_everything_about_steering(also):
    with pytest.raises(RaigenError, match="none beside a recipe"):
        AmplifyConfig(recipe="r.json", **also)


def test_a_family_is_turned_by_contrast_alone(run):
    """Its number lies beyond those of the neurons."""
    first, second = run.attributes
    run.write_attributes([replace(first, neuron=160, is_family=True), second])
    studio = Studio(run, StudioConfig(device="cpu"))
    (pair,) = studio.pairs(studio.recipe([Turned(160, 1.0)]), [0])
    assert not np.array_equal(pixels_of(run, pair.unsteered), pixels_of(run, pair.steered))
    with pytest.raises(RaigenError, match="method: expected contrast, because a family has no neuron; got steer"):
        studio.recipe([Turned(160, 1.0)], method="steer")


def test_a_neuron_listed_by_hand_goes_through_evaluate_like_the_others(run):
    neuron, listed = unlisted(run)[0], run.attributes
    assert neuron.number not in {attribute.neuron for attribute in listed} and neuron.why and reasons(run)
    files = strongest_images(run, neuron.number)
    added = list_by_hand(run, neuron.number, " a grey\nwall ", "Ada")
    assert (added.rank, added.label, added.labeled_by, added.by_hand) == (3, "a grey wall", "Ada", True)
    assert added.top_images == tuple(file for file, _ in files) and added.frequency == neuron.frequency
    assert run.attributes == [*listed, added] and run.heatmaps().shape[0] == 3
    codes = run.image_codes()[[run.index_of[file] for file in added.top_images], neuron.number]
    assert run.heatmaps()[2].max(axis=(1, 2)) == pytest.approx(codes, rel=1e-3)
    assert not run.has_finished("evaluate") and run.is_done("annotate", run.config.annotate)
    run_stage(run, "evaluate", run.config.evaluate)
    *_, measured = run.attributes
    assert measured.presence.n == 4 and measured.label == "a grey wall"
    run_stage(run, "report", run.config.report)
    assert "a grey wall" in run.report().read_text()
    run_stage(run, "annotate", run.config.annotate, redo=True)  # names the others anew
    *_, kept = run.attributes
    assert (kept.label, kept.labeled_by, kept.presence) == ("a grey wall", "Ada", None)
    second = list_by_hand(run, unlisted(run)[0].number, "another")
    assert second.labeled_by == "a person" and run.heatmaps().shape[0] == 4


@pytest.mark.parametrize(
    ("neuron", "label", "message"),
    [
        (None, "a cat", "is listed already, at rank 1: a bright sky"),
        (160, "a cat", "expected a number from 0 to 159; got 160"),
        (-1, "a cat", "expected a number from 0 to 159; got -1"),
        (0, " \n", "expected a name of 1 to 100 characters for the neuron; got 0"),
        (0, "x" * 101, "expected a name of 1 to 100 characters for the neuron; got 101"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_error(run, neuron, label, message):
    with pytest.raises(RaigenError, match=message):
        list_by_hand(run, run.attributes[0].neuron if neuron is None else neuron, label)
    assert len(run.attributes) == 2 and run.has_finished("evaluate")


def test_the_studio_needs_gradio_and_says_so(run, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["studio", str(run.dir)]) == 2
    assert capsys.readouterr().err == (
        "raigen: studio: expected the package gradio; it is not installed. Install it with: pip install "
        "'raigen[studio]'\n"
    )


@pytest.mark.parametrize("bad", [{"host": ""}, {"port": 70000}, {"judge": ("clip", "portraits")}, {"judge": "nobody"}])
def test_settings_are_checked(bad):
    with pytest.raises(RaigenError):
        StudioConfig(**bad)
