"""Which neurons are listed, with which images, and where in them they fire."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import false_discovery_control, hypergeom

from raigen.config import CaptureConfig, DiscoverConfig, SAEConfig
from raigen.discovery import discover as room
from raigen.discovery.codes import heatmaps, image_codes, stored_codes, strongest
from raigen.discovery.discover import discover, heatmaps_of, kin_lines
from raigen.discovery.hierarchy import Relation, relations_of
from raigen.discovery.listing import NeuronList, eligible_scores, neurons_csv
from raigen.discovery.scores import coherence_scores, minority_scores
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.images import write_image, write_list
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.sae.model import MatryoshkaSAE
from tests.support.tiny import drained


@pytest.fixture
def store(tmp_path) -> ActivationStore:
    generator = torch.Generator().manual_seed(0)
    for first in (0, 6):
        ActivationStore.write(tmp_path, first, torch.randn((6, 2, 4, 3), generator=generator), (2, 2), (0, 1))
    return ActivationStore(tmp_path)


@pytest.fixture
def sae(store) -> MatryoshkaSAE:
    torch.manual_seed(0)
    sae = MatryoshkaSAE(SAEConfig(d_in=3, d_sae=12, group_sizes=(5, 7), k=2))
    sae.initialize(torch.randn(50, 3) + 1)
    sae.threshold.fill_(0.3)
    return sae


def test_codes_and_heatmaps_are_one_encoding_of_the_last_step(store, sae):
    codes, peaks = stored_codes(store, sae, "published"), stored_codes(store, sae, "coherent")
    last = store.images(range(12), 1)
    assert codes.shape == (12, 5) and peaks.shape == (12, 12)  # the published score takes coarse neurons only
    for image in range(12):
        encoded = sae.encode(last[image]).detach().numpy()
        np.testing.assert_allclose(codes[image], encoded[:, :5].mean(0), atol=1e-6)
        np.testing.assert_allclose(peaks[image], encoded.max(0), atol=1e-6)
    top = np.array([strongest(codes[:, neuron], 3) for neuron in (4, 0)])
    listing = NeuronList(minority_scores(peaks, peaks), np.array([4, 0]), top)
    maps = heatmaps_of(listing, store, sae)
    assert maps.shape == (2, 3, 2, 2)
    for row, neuron in enumerate((4, 0)):
        np.testing.assert_allclose(maps[row].mean((1, 2)).numpy(), codes[top[row], neuron], atol=1e-6)


def test_a_heatmap_is_bit_for_bit_a_column_of_the_codes_and_costs_no_more(store, sae, monkeypatch):
    last, encode, asked = store.images(range(12), 1), MatryoshkaSAE.encode, []

    def counted(self, tokens, neurons=slice(None)):
        asked.append(len(range(self.config.d_sae)[neurons]) if isinstance(neurons, slice) else len(neurons))
        return encode(self, tokens, neurons)

    expected = image_codes(sae, last, "coherent")[:, 5]
    monkeypatch.setattr(MatryoshkaSAE, "encode", counted)
    maps = heatmaps(sae, last, 5)
    assert torch.equal(maps.amax(1), expected) and asked == [2] * 12  # columns, of 12
    heatmaps_of(NeuronList(minority_scores(np.eye(3), np.eye(3)), np.array([4]), np.array([[1, 0]])), store, sae)
    assert asked[12:] == [2, 2]


def test_strongest_first_and_ties_in_order():
    assert strongest(np.array([0.0, 2, 1, 2, 0]), 4).tolist() == [1, 3, 2, 0]


def test_neurons_that_fire_too_seldom_are_neither_scored_nor_in_anyones_way():
    rng = np.random.default_rng(0)
    embeddings, looks = rng.normal(size=(40, 6)), rng.normal(size=(40, 9))
    codes = np.zeros((40, 4))
    codes[:20, 0], codes[:12, 1], codes[:10, 2], codes[0, 3] = 1, 1, 1, 9
    scores = eligible_scores(codes, [embeddings], 10, "published")
    assert scores.live.tolist() == [True, True, True, False]
    np.testing.assert_allclose(scores.minority_score[:3], minority_scores(codes[:, :3], embeddings).minority_score)
    assert eligible_scores(codes, [embeddings], 1, "published").live.all()
    ranked = scores._replace(minority_score=np.array([0, 0.4, 0.9, np.nan]))
    listing = NeuronList(ranked, np.array([2]), np.arange(10)[None])
    lines = neurons_csv(listing, codes, DiscoverConfig("published", distance=2.0, percentile=0.0)).splitlines()
    assert lines[0] == "neuron,frequency,distinctiveness,minority_score,listed,left_out"
    assert lines[4] == "3,0.025,,,0,fires in fewer than 10 pictures"
    assert lines[1].endswith(",0,stands out too little") and lines[2].endswith(",0,like neuron 2")
    assert lines[3].startswith("2,0.25,") and lines[3].endswith(",1,")
    with pytest.raises(RaigenError, match="no neuron fires in 21 images or more, of 40: capture more"):
        eligible_scores(codes, [embeddings], 21, "published")
    ours = eligible_scores(codes, [embeddings, looks], 10, "coherent")
    assert ours.live.tolist() == [True, True, True, False]
    np.testing.assert_allclose(ours.minority_score[:3], coherence_scores(codes, [embeddings, looks]).minority_score[:3])


def planted_family():
    """400 images. Coarse 0 fires in the first 40, coarse 1 in the first 100, coarse 2 in every other one. Of the fine
    ones, 3 and 4 fire within 0 (30 and 10 of its images), 5 half within it, 6 within 1 only, 7 in 12 that are all of
    them coarse 2's; 8 in 4 of coarse 0's, too few. 3 fires once elsewhere, and faintly in more."""
    codes = np.zeros((400, 9), np.float32)
    codes[:40, 0] = codes[:100, 1] = codes[::2, 2] = 1
    codes[:30, 3] = codes[40, 3] = codes[20:30, 4] = codes[30:50, 5] = codes[60:90, 6] = codes[200:224:2, 7] = 1
    codes[:4, 8], codes[300:310, 3] = 1, 0.2
    return codes


def test_children_are_the_fine_neurons_that_fire_within_a_listed_one():
    codes = planted_family()
    found = relations_of(codes, 3, [1, 0])
    assert [(k.neuron, k.parent, k.child) for k in found] == [
        (1, 1, 3), (1, 1, 6), (1, 1, 5), (1, 1, 4), (0, 0, 3), (0, 0, 4),
    ]  # fmt: skip
    first = found[4]
    assert (first.frequency, first.covers) == (31 / 400, 30 / 40)
    assert (first.within, first.lift) == pytest.approx((30 / 31, 30 / 31 / 0.1))
    on = codes >= 0.25
    tails = [hypergeom.sf((on[:, a] & on[:, b]).sum() - 1, 400, on[:, a].sum(), on[:, b].sum())
             for a in (1, 0) for b in (3, 4, 5, 6, 7)]  # fmt: skip
    assert first.q == pytest.approx(false_discovery_control(tails)[5])
    assert [k.child for k in relations_of(codes, 3, [2])] == [7]
    codes[1, 2] = 1  # coarse 2 now fires in more than half of the images, and holds nothing
    assert relations_of(codes, 3, [2]) == []


def test_the_parent_of_a_listed_fine_neuron_is_the_narrowest_that_holds_it():
    found = relations_of(planted_family(), 3, [4, 6, 5, 8])
    assert [(k.neuron, k.parent, k.child) for k in found] == [(4, 0, 4), (6, 1, 6), (5, 1, 5)]
    assert (found[0].frequency, found[0].within, found[0].covers, found[0].other) == (0.1, 1, 0.25, 0)


def test_containment_by_chance_makes_no_kin():
    rng = np.random.default_rng(0)
    codes = (rng.random((200, 3020)) < np.where(np.arange(3020) < 20, 0.5, 0.04)).astype(np.float32)
    coarse, fine = codes[:, :20], codes[:, 20:]
    assert (coarse.T @ fine >= 0.8 * fine.sum(0)).mean() > 0.02  # there are plenty that look like it
    assert relations_of(codes, 20, range(20)) == []
    assert relations_of(codes, 3020, range(20)) == []  # a dictionary of one group


def test_a_line_names_the_strongest_images_of_the_relative():
    codes = planted_family()
    codes[:30, 3] = np.linspace(3, 2, 30)
    samples = [Sample(i, "p", i, f"images/{i}.png", "") for i in range(400)]
    lines = [json.loads(line) for line in kin_lines(relations_of(codes, 3, [0, 4]), codes, 3, samples).splitlines()]
    assert [(line["neuron"], [name[7:-4] for name in line["top_images"]]) for line in lines] == [
        (0, ["0", "1", "2"]), (0, ["20", "21", "22"]), (4, ["0", "1", "2"]),
    ]  # fmt: skip
    assert list(lines[0]) == [*Relation._fields, "top_images"]


def captured(sae, folder, black=()) -> Run:
    """A run of twelve images of noise, with activations and an autoencoder."""
    run = Run.create(folder / "run")
    run.begin("capture", CaptureConfig("a doctor"))
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    activations = torch.randn((12, 1, 4, 3), generator=generator)
    activations[list(black)] *= 9  # would be first everywhere
    ActivationStore.write(run.activations_dir, 0, activations, (2, 2), (0,))
    sae.save(run.sae_dir)
    samples = {}
    for index in range(12):
        image = Image.fromarray(rng.integers(1, 256, (16, 16, 3), np.uint8) * (index not in black))
        samples[index] = write_image(run, run.images_dir, index, "a doctor", index, image)
    write_list(run.samples_path, samples)
    run.finish("capture", Outcome([], {"black_images": list(black)}), 1.0)
    return run


def test_a_finding_tells_how_many_autoencoders_have_it(sae, clip_folder, tmp_path):
    run = captured(sae, tmp_path)
    config = DiscoverConfig(n_top_images=4, min_images=4, max_frequency=1.0, distance=0.05, embedder=str(clip_folder))
    drained(discover(run, config))
    assert {attribute.found_by for attribute in run.attributes} == {None}
    sae.save(run.seed_dir(1))
    drained(discover(run, config))
    assert {attribute.found_by for attribute in run.attributes} == {2}
    first, second, *_ = (attribute.neuron for attribute in run.attributes)
    with torch.no_grad():
        rest = torch.tensor([neuron not in (first, second) for neuron in range(12)])
        sae.W_enc[:, rest], sae.b_enc[rest] = 0, -9  # silent; of two neurons the better one stands out
    sae.save(run.seed_dir(2))
    drained(discover(run, config))
    assert [attribute.found_by for attribute in run.attributes][:2] == [3, 2]


def test_everything_runs_on_the_device_of_the_capture(sae, clip_folder, tmp_path, monkeypatch):
    run, devices = captured(sae, tmp_path), []
    monkeypatch.setattr(room, "resolve_device", lambda device: torch.device("cpu", 0))

    class Observed(room.Embedder):
        def images(self, images):
            devices.append(self.device)
            return super().images(images)

    monkeypatch.setattr(room, "Embedder", Observed)
    config = DiscoverConfig(n_top_images=4, min_images=4, max_frequency=1.0, embedder=str(clip_folder))
    drained(discover(run, config))
    assert devices == [torch.device("cpu", 0)]


def test_black_images_count_for_nothing(sae, clip_folder, tmp_path):
    run, samples = (run := captured(sae, tmp_path, (2, 7))), run.samples()
    config = DiscoverConfig("published", percentile=0.0, n_top_images=4, min_images=4, embedder=str(clip_folder))
    _, outcome = drained(discover(run, config))
    codes = run.read_tensors(run.codes_path, "discover")["image_codes"].numpy()
    assert outcome.facts["n_black"] == 2 and not codes[[2, 7]].any()
    for attribute in run.attributes:
        assert not {samples[2].file, samples[7].file} & set(attribute.top_images)
        assert attribute.frequency == pytest.approx((codes[:, attribute.neuron] > 0).sum() / 10)
