"""A name is given when a phrase tells a neuron's images from the others, and not otherwise."""

import json

import numpy as np
import pytest
import torch

from raigen.config import AnnotateConfig, ReportConfig
from raigen.discovery.embeddings import embedder_of
from raigen.errors import RaigenError
from raigen.judging import annotate as annotating
from raigen.judging.annotate import control_samples, labeled, name_of, vocabulary
from raigen.report import neuron_cards
from raigen.report.neuron_cards import THUMBS, read_codes
from raigen.runs.files import write_tensors
from raigen.runs.records import RareAttribute, Sample
from tests.support.run_folder import make_run
from tests.support.tiny import drained

PHRASES = ["wearing glasses", "holding a cat", "in the snow"]


def attribute() -> RareAttribute:
    return RareAttribute(1, 7, 0.5, 0.02, 0.1, ("images/000000.png",))


def images(seed: int, strength: float):
    """60 embeddings near one direction; the first ten lean towards phrase 1 by `strength`."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(8, 8)))[0][:3]
    embeddings = rng.normal(size=(60, 8)) * 0.2 + 1
    embeddings[:10] += strength * directions[1]
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), directions


@pytest.mark.parametrize("seed", range(5))
def test_the_planted_phrase_is_named(seed):
    embeddings, directions = images(seed, 2.0)
    naming = name_of(embeddings, np.arange(10), directions, PHRASES)
    assert naming.phrases[0] == "holding a cat" and naming.auroc[0] > 0.95
    named = labeled(attribute(), naming, "a photo of a doctor", 0.8)
    assert named.label == named.keywords[0] == "holding a cat"
    assert named.suggested_prompt == "a photo of a doctor, holding a cat"
    assert named.labeled_by == "CLIP" and named.label_auroc == naming.auroc[0]


def test_without_a_difference_there_is_no_name():
    unnamed = 0
    for seed in range(10):
        embeddings, directions = images(seed, 0.0)
        found = labeled(
            attribute(), name_of(embeddings, np.arange(10), directions, PHRASES), "a photo of a doctor", 0.8
        )
        unnamed += found.label is None
        if found.label is None:
            assert found.keywords == () and found.suggested_prompt is None and found.label_auroc is None
    assert unnamed >= 8


def test_auroc_by_hand():
    embeddings = np.array([[3.0], [1.0], [2.0], [0.0]])
    naming = name_of(embeddings, np.array([0, 1]), np.array([[1.0]]), ["x"])
    assert naming.auroc == [0.75]  # 3 > 2, 3 > 0, 1 > 0, but 1 < 2
    assert naming.contrast == [1.0]


def test_a_vocabulary_leaves_out_what_the_prompt_says(tmp_path):
    assert "bald" in vocabulary("auto", "portraits", "a photo of a doctor")
    general = vocabulary("auto", "some/model", "a photo of a child")
    assert len(general) > 300 and "a child" not in general and "a teenager" in general
    assert not any(phrase.startswith("#") for phrase in general)
    mine = tmp_path / "mine.txt"
    mine.write_text("red shoes\n\n# a comment\nblue shoes\nred shoes\n")
    assert vocabulary(str(mine), "portraits", "a photo of a doctor") == ["red shoes", "blue shoes"]
    mine.write_text("red shoes\ndoctor\n")
    with pytest.raises(RaigenError, match="at least two phrases that the prompt does not say"):
        vocabulary(str(mine), "portraits", "a photo of a doctor")
    with pytest.raises(RaigenError, match="expected one of auto, portraits, emblems, general, or a text file"):
        vocabulary("nowhere.txt", "portraits", "a photo of a doctor")


def pixels_of(run, sample, what, *rest):
    return neuron_cards.ShownImage(run.read_image(sample).tobytes().hex(), None, what)


def test_the_report_shows_the_random_images_that_the_annotator_saw(tmp_path, monkeypatch):
    """Of six and of twelve images, as of ten: the first are the same."""
    run, seen, shown = make_run(tmp_path / "run"), [], []
    attributes = run.attributes
    monkeypatch.setattr(annotating, "evidence_sheet", lambda top, maps, control: seen.append(control))
    list(annotating._jobs(run, attributes))
    for n in (6, 10, 12):
        monkeypatch.setattr(neuron_cards, "image_of", pixels_of)
        codes = read_codes(run, np.arange(300))
        found = neuron_cards.cards(run, attributes, codes, ReportConfig(n_control_images=n), THUMBS[0])
        shown = [[image.uri for image in card["control"]] for card in found]
        for theirs, ours in zip(seen, shown, strict=True):
            assert len(theirs) == 10 and len(ours) == n
            both = list(zip(theirs, ours, strict=False))
            assert len(both) == min(n, 10) and all(one.tobytes().hex() == other for one, other in both)


def test_control_images_are_random_ones_each_once():
    samples = [Sample(i, "p", i, f"{i}.png", "") for i in range(30)]
    top = RareAttribute(1, 7, 0.5, 0.02, 0.1, tuple(f"{i}.png" for i in range(10)))
    for n, found in ((None, 10), (4, 4), (10, 10), (16, 16), (99, 20)):
        control = control_samples(samples, top, 3, n)
        assert len(control) == len(set(control)) == found and not {c.file for c in control} & {*top.top_images}
    assert control_samples(samples, top, 4) != control_samples(samples, top, 3)


def test_the_directions_of_the_vocabulary_are_kept(tmp_path):
    run = make_run(tmp_path, n_attributes=1, until="discover")
    manifest = json.loads(run.manifest_path.read_text())
    manifest["stages"]["discover"]["facts"]["embedder"] = "portraits"
    run.manifest_path.write_text(json.dumps(manifest))
    embedder = embedder_of(run)
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(embedder.images(
        [run.read_image(sample) for sample in run.samples()]))})  # fmt: skip
    _, outcome = drained(annotating.annotate(run, AnnotateConfig()))
    assert run.words_path in outcome.outputs
    kept = run.read_tensors(run.words_path, "annotate")
    phrases = json.loads(kept["phrases"].numpy().tobytes())
    assert phrases == vocabulary("auto", "portraits", "a photo of a doctor")
    texts = embedder.texts(["a photo of a doctor", f"a photo of a doctor, {phrases[3]}"])
    np.testing.assert_allclose(kept["directions"][3].float().numpy(), texts[1] - texts[0], atol=1e-3)
