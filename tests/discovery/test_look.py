"""Looking around odd images: families keep what is odd, are listed beside neurons, and survive every stop."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ImageChops
from safetensors.torch import load_file

from raigen.amplification.rendering import Renderer
from raigen.auditing.audit import capture_and_train, run_stage, steps
from raigen.config import AmplifyConfig, AnnotateConfig, AuditConfig, EvaluateConfig, LookConfig
from raigen.diffusion.generation import generate
from raigen.diffusion.recorded import recorded_pipeline, recorded_settings
from raigen.discovery import joint_list
from raigen.discovery import look as looking
from raigen.discovery.families import ENOUGH, Family, Relative, Views, begin_families
from raigen.discovery.reach import unseen_of
from raigen.judging.label_scores import material_of, scored_labels
from raigen.runs.activations import ActivationStore
from raigen.runs.run import Run

DOCTOR, N_IMAGES, BUDGET = "a photo of a doctor", 52, 60
N_ODD = 3  # of 400 images that have a rare trait


def seen(noise):
    """A model of images: a row is the noise in 20 directions; where the first number of the noise is large, it has a
    rare trait in a direction of its own."""
    trait = np.where(noise[:, :1] > 2.4, 6.0, 0.0) + 0.1 * noise[:, :1]
    return np.concatenate([noise[:, 1:], trait], axis=1)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(size=(400, 21)), -2.3, 2.3)
    noise[:N_ODD, 0] = 3.0
    return noise, Views([seen(noise)], np.ones(400, bool))


def grown(family, views, noise, rng):
    """Relatives of a family in the model of images, until it is complete."""
    of = {family.members[0].lineage: noise[family.image]}
    while family.goes_on:
        lineages = family.next_generation()
        for lineage in lineages:
            size, _ = lineage[-1]
            of[lineage] = np.sqrt(1 - size**2) * of[lineage[:-1]] + size * rng.normal(size=21)
        family.add(
            [
                Relative(lineage, 0, row)
                for lineage, row in zip(
                    lineages, views.place([seen(np.array([of[lineage] for lineage in lineages]))]), strict=True
                )
            ]
        )
    return of


def test_the_odd_come_first_and_images_that_are_not_shown_never(world):
    noise, views = world
    assert set(views.odd_first()[:N_ODD].tolist()) == set(range(N_ODD))
    shown = np.arange(400) != 1
    assert 1 not in Views([seen(noise)], shown).odd_first()


def test_a_family_keeps_the_trait_and_loses_the_rest(world):
    noise, views = world
    family = Family(views, 0, seed=0, step=0.4)
    of = grown(family, views, noise, np.random.default_rng(1))
    has_trait = np.array([of[member.lineage][0] > 2.4 for member in family.members])
    assert (family.has_kept == has_trait).mean() > 0.95
    assert family.n_kept >= ENOUGH
    trait = views.direction(views.place([np.eye(21)[-1:] * 6 + seen(noise).mean(0) * 0])[0])
    assert family.direction @ trait > 0.8  # the contrast within the family: the trait, and little else


def test_no_two_families_have_one_oddity(world):
    noise, views = world
    first = Family(views, 0, seed=0, step=0.4)
    grown(first, views, noise, np.random.default_rng(1))
    tried = {0}
    begun = begin_families(views, views.odd_first().tolist(), [first], tried, list(range(400)), 0.4, count=4)
    assert len(begun) == 4 and not {family.image for family in begun} & set(range(N_ODD))
    assert tried == {0, *(family.image for family in begun)}


@pytest.fixture(scope="module")
def discovered(sd_folder, clip_folder, tmp_path_factory):
    """A tiny audit up to discovery."""
    config = AuditConfig.of(DOCTOR, model=str(sd_folder), n_images=N_IMAGES, batch_size=16, tokens_per_batch=512,
                            d_sae=64, k=4, device="cpu", num_inference_steps=2, embedder=str(clip_folder),
                            min_images=1, max_frequency=1.0, n_attributes=1)  # fmt: skip
    run = Run.create(tmp_path_factory.mktemp("look") / "run")
    with run.locked():
        list(capture_and_train([run], [config]))
        list(steps(run, "discover", config.discover))
    return run


@pytest.fixture
def run(discovered, tmp_path, monkeypatch):
    """A copy of it, and limits that let a model with random weights list families."""
    import shutil

    monkeypatch.setattr(looking, "FEWEST_IMAGES", 40)
    monkeypatch.setattr(joint_list, "APART", -9.0)
    monkeypatch.setattr(joint_list, "MOST_HALFWAY", 1.0)
    monkeypatch.setattr(looking, "WHOLE", 2)
    return Run(shutil.copytree(discovered.dir, tmp_path / "run"))


CONFIG = LookConfig(n_look_images=BUDGET, first_step=0.2)


def files_of(run):
    """The files of a look; tensors without the order in which they are stored."""
    paths = [run.attributes_path, run.aside_path, run.look_path, *run.look_dir.rglob("*.*")]
    return {path.relative_to(run.dir): contents(path) for path in paths}


def contents(path):
    if path.suffix != ".safetensors":
        return path.read_bytes()
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def test_what_is_listed_can_be_made_again(run):
    run_stage(run, "look", CONFIG)
    relatives, facts = run.relatives(), run.facts.look
    assert facts.n_relatives == len(relatives) <= BUDGET and facts.why_not is None
    families = [one for one in run.attributes if one.is_family]
    assert facts.n_listed == len(families) > 0
    assert [one.rank for one in run.attributes] == list(range(1, len(run.attributes) + 1))
    assert run.image_codes().shape[1] == run.facts.discover.n_neurons + len(families)
    assert len(run.heatmaps()) == len(run.attributes)
    assert len(run.all_embeddings()) == len(run.index_of) == N_IMAGES + len(relatives)
    assert all(file in run.index_of for one in run.attributes for file in one.top_images)
    pipe, sample = recorded_pipeline(run), relatives[-1]
    settings = recorded_settings(run, pipe, run.config.capture)
    (again,) = generate(pipe, DOCTOR, [sample.lineage], settings).images
    extrema = ImageChops.difference(again.convert("RGB"), run.read_image(sample, "look")).getextrema()
    assert max(high for _, high in extrema) <= 1


def test_a_look_that_was_stopped_anywhere_ends_the_same(run, discovered, tmp_path):
    run_stage(run, "look", CONFIG)
    expected = files_of(run)
    import shutil

    for stop_after in (1, 2):
        other = Run(shutil.copytree(discovered.dir, tmp_path / f"stopped-{stop_after}"))
        stopped = looking.look(other, CONFIG)
        for _ in range(stop_after + 2):
            next(stopped)
        stopped.close()
        n_made = len(list(other.relatives_dir.glob("*.png")))
        before = {path: path.stat().st_mtime_ns for path in other.relatives_dir.glob("*.png")}
        run_stage(other, "look", CONFIG)
        assert n_made and {path: path.stat().st_mtime_ns for path in before} == before  # none was made again
        assert files_of(other) == expected


def test_a_second_look_finds_the_same(run):
    run_stage(run, "look", CONFIG)
    expected = files_of(run)
    run_stage(run, "look", CONFIG, redo=True)
    assert files_of(run) == expected


def test_no_neuron_is_lost_and_a_look_that_lists_none_gives_all_back(run, monkeypatch):
    before = run.attributes
    monkeypatch.setattr(joint_list, "APART", 99.0)
    run_stage(run, "look", CONFIG)
    assert run.attributes == [] and [one.why_aside for one in run.set_aside] == ["weak"] * len(before)
    assert len(run.heatmaps()) == 0 and "weak" in run.aside_path.read_text()
    run_stage(run, "look", LookConfig(n_look_images=0), redo=True)
    assert run.attributes == before and run.set_aside == []


def test_what_no_audited_image_shows_is_estimated_by_what_only_one_shows(run):
    assert unseen_of(run) is None
    run_stage(run, "look", CONFIG)
    counts = (run.family_codes()[:N_IMAGES] > 0).sum(0)
    found = unseen_of(run)
    assert found.once == (counts <= 1).sum() and found.share == found.once / N_IMAGES
    assert 0 <= found.low <= found.share <= found.high and f"in one of {N_IMAGES} audited images" in found.text


def test_without_a_look_the_list_stays(run):
    before = run.attributes
    run_stage(run, "look", LookConfig(n_look_images=0))
    assert run.attributes == before and run.facts.look.why_not == "--n-look-images is 0"
    assert not run.look_dir.exists()


def test_a_pipeline_whose_noise_stays_is_told(run, monkeypatch):
    monkeypatch.setattr("raigen.diffusion.generation.MovedNoise.__torch_function__",
                        lambda self, func, types, args=(), kwargs=None: func(*args, **(kwargs or {})))  # fmt: skip
    run_stage(run, "look", CONFIG)
    assert "noise in a way that raigen cannot move" in (run.facts.look.why_not or "")
    assert not any(one.is_family for one in run.attributes)


def test_names_are_for_families_too_and_an_early_run_is_left_as_it_is(run):
    run_stage(run, "annotate", replace(AnnotateConfig(), vocabulary="portraits"))
    manifest = json.loads(run.manifest_path.read_text())
    assert "look" not in manifest["stages"] and run.predates_look and run.is_done("look", CONFIG)
    run_stage(run, "look", CONFIG)  # asked for: names are found anew after it
    assert not run.has_finished("annotate")
    run_stage(run, "annotate", replace(AnnotateConfig(), vocabulary="portraits"))
    lines = [json.loads(line) for line in run.annotations_path.read_text().splitlines()]
    assert {line["neuron"] for line in lines} == {one.neuron for one in run.attributes}


def test_the_contrast_of_a_family_is_that_of_its_top_images(run):
    run_stage(run, "look", CONFIG)
    family = next(one for one in run.attributes if one.is_family)
    pattern = Renderer(run, AmplifyConfig(attribute=(family.rank,), device="cpu")).pattern(family.neuron)
    stores = [ActivationStore(run.activations_dir), ActivationStore(run.relative_activations_dir)]
    last = torch.cat([torch.cat([chunk.activations for chunk in store.step(store.step_indices[-1])])
                      for store in stores])  # fmt: skip
    top = [run.index_of[file] for file in family.top_images]
    assert max(top) >= N_IMAGES  # relatives are among them
    torch.testing.assert_close(pattern, last[top].mean(0) - last[:N_IMAGES].mean(0))


def test_no_image_that_named_a_family_checks_its_name(run):
    run_stage(run, "look", CONFIG)
    families = [replace(one, label="a hat") for one in run.attributes if one.is_family]
    material = material_of(run)
    assert material.place_of == run.index_of
    scored = scored_labels(run, families, material, EvaluateConfig())
    tops = {one.attribute.neuron: {run.index_of[file] for file in one.attribute.top_images} for one in scored}
    held = {one.attribute.neuron: {*np.concatenate(one.held_out).tolist()} for one in scored if one.held_out}
    assert held and all(not held[neuron] & tops[neuron] for neuron in held)
    assert any(max(places) >= N_IMAGES for places in held.values())  # relatives check it, too
