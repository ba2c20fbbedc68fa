"""The search for a hookpoint: what it keeps, what it measures, in which order it lists, and what it says."""

import json

import numpy as np
import pytest
import torch

from raigen.cli import main as cli
from raigen.cli.tables import print_search
from raigen.config import SearchConfig
from raigen.diffusion.hooks import TokenLayout
from raigen.discovery import search as room
from raigen.discovery.listing import NeuronList
from raigen.discovery.samples import ActivationSample, SampledActivations
from raigen.discovery.scores import NeuronScores
from raigen.discovery.search import Reading, concentration, ranked, rating_of, reading
from raigen.errors import RaigenError
from raigen.runs.records import HookpointRating
from raigen.runs.steps import exhausted
from tests.support.tiny import WIDTH

N, PLACES, D_IN = 200, 9, 16


def heard(ear, seeds, size, outputs):
    """What an ear keeps of outputs [image, step, token, d_in], `size` images at a time."""
    for start in range(0, len(seeds), size):
        ear.begin(seeds[start : start + size])
        for step in range(outputs.shape[1]):
            ear(step, outputs[start : start + size, step])
        ear.end("unet.here")
    return ear.kept()


def test_what_is_kept_does_not_depend_on_the_batches():
    outputs, layout = torch.randn(6, 2, 36, 4), TokenLayout(0, 0, 0, (6, 6), 4)
    one, other = (heard(ActivationSample(layout, 5), range(6), size, outputs) for size in (2, 4))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert one.tokens.shape == (6 * 2 * 5, 4) and one.images.tolist() == [i for i in range(6) for _ in range(10)]
    assert torch.equal(one.last, outputs[:, 1].half())
    drawn = {tuple(token) for token in one.tokens[:10].tolist()}
    assert len(drawn) == 10 and drawn <= {tuple(token) for token in outputs[0].half().flatten(0, 1).tolist()}
    same = outputs[:, :1].half().flatten(1, 2).unsqueeze(1) == one.tokens.view(6, 10, 1, 4)[:, :5]
    places = same.all(3).nonzero()[:, 2].view(6, 5)
    assert len({tuple(row) for row in places.tolist()}) == 6  # of each image others


def test_large_grids_are_thinned_evenly():
    layout = TokenLayout(0, 0, 0, (40, 30), 1)
    kept = heard(ActivationSample(layout, 7), range(1), 1, torch.arange(1200.0).view(1, 1, 1200, 1))
    rows, columns = kept.last.flatten().int() // 30, kept.last.flatten().int() % 30
    assert rows.unique().tolist() == list(range(0, 40, 3)) and columns.unique().tolist() == list(range(0, 30, 3))


def test_numbers_too_large_for_float16_are_a_reason_and_free_the_memory():
    ear = ActivationSample(TokenLayout(0, 0, 0, (2, 2), 3), 4)
    with pytest.raises(RaigenError, match="numbers that float16 cannot hold, for one of the seeds 2 to 3"):
        heard(ear, range(4), 2, torch.cat([torch.zeros(2, 1, 4, 3), torch.full((2, 1, 4, 3), 1e6)]))
    assert ear.tokens == ear.last == []


def planted(strength: float) -> tuple[SampledActivations, list[np.ndarray]]:
    """200 images of which twelve are alike to the eye; a hookpoint shows these at one place, `strength` clearly."""
    generator = torch.Generator().manual_seed(0)
    views = [np.random.default_rng(seed).normal(size=(N, 12)) for seed in (0, 1)]
    last = torch.randn(N, PLACES, D_IN, generator=generator)
    for view in views:
        view[:12, 0] += 9
    last[:12, 4, 0] += strength
    kept = SampledActivations(
        last.flatten(0, 1).half().repeat(3, 1), torch.arange(N).repeat_interleave(PLACES).repeat(3), last.half()
    )
    return kept, views


def test_the_hookpoint_that_holds_what_is_rare_comes_first():
    cpu, tried = torch.device("cpu"), []
    for path, strength in (("blind", 0.0), ("seeing", 12.0)):
        kept, views = planted(strength)
        tried.append(rating_of(path, path == "blind", [reading(kept, views, seed, cpu) for seed in (0, 1)]))
    best, worst = ranked(tried)
    assert (best.path, best.rank, worst.path, worst.rank, worst.is_default) == ("seeing", 1, "blind", 2, True)
    assert best.score > worst.score
    for read in tried[1].readings:
        first = read.listing.neurons[0]
        assert set(np.argsort(-read.max_codes[:, first])[:10]) <= set(range(12)) and read.concentration[0] > 0.8


def test_black_images_are_no_kind_of_image():
    kept, views = planted(12.0)
    views[1][:12] = 0  # what `looks` says of them
    read = reading(kept, views, 0, torch.device("cpu"))
    assert not read.max_codes[:12].any() and read.max_codes[12:].any()


def some(scores: list[float], centroids: np.ndarray) -> Reading:
    """What an autoencoder found whose neurons are all listed."""
    none = np.zeros(len(scores))
    found = NeuronScores(none, none, np.array(scores), centroids)
    listing = NeuronList(found, np.arange(len(scores)), np.zeros((len(scores), 10), int))
    return Reading(np.ones((3, len(scores))), listing, none + 0.5, 0.25)


def test_a_rating_is_the_mean_over_both_autoencoders():
    axes = np.eye(12)
    one, other = some([0.8, 0.4], axes[:2]), some([0.6], axes[1:2])
    rating = rating_of("here", False, [one, other])
    assert (rating.score, rating.stability, rating.n_listed) == (pytest.approx(0.09), 0.75, 1.5)
    assert (rating.concentration, rating.dead_share, rating.reason) == (0.5, 0.25, None)
    none = rating_of("there", False, [some([], axes[:0]), one])
    assert (none.score, none.stability, none.n_listed) == (pytest.approx(0.06), 0.0, 1.0)


def test_the_rank_is_the_mean_of_three():
    def rated(path: str, score: float, stability: float, concentration: float, dead_share: float = 0.0):
        return HookpointRating(path, False, None, score, concentration, stability, dead_share, 10.0)

    ratings = [
        HookpointRating("none", False, reason="why"),
        rated("scored", 0.9, 0.5, 0.1),  # ranks 1, 3, 4
        rated("steady", 0.5, 0.9, 0.5, 0.8),  # 2.5, 1.5, 2
        rated("sharp", 0.5, 0.9, 0.6),  # 2.5, 1.5, 1
        rated("last", 0.1, 0.1, 0.4),  # 4, 4, 3
    ]
    assert [rating.path for rating in ranked(ratings)] == ["sharp", "steady", "scored", "last", "none"]
    assert [rating.rank for rating in ranked(ratings)] == [1, 2, 3, 4, None]
    tied = [rated("less", 0.4, 0.9, 0.5), rated("more", 0.5, 0.9, 0.4)]
    assert [rating.path for rating in ranked(tied)] == ["more", "less"]


def test_places_that_are_filled_evenly_are_not_concentrated():
    assert concentration(np.ones((2, 8))) == 0
    assert concentration(np.eye(8)) == 1 - 1 / 8
    assert concentration(np.eye(8) * 7) == concentration(np.eye(8))


def quick(clip, **options) -> SearchConfig:
    return SearchConfig(n_images=50, device="cpu", embedder=str(clip), **options)


def test_a_search_tries_every_candidate_on_the_same_images(sd_folder, clip_folder):
    steps, seen = [], []
    tried = exhausted(room.try_hookpoints(str(sd_folder), quick(clip_folder), [seen.extend]), steps.append)
    assert {each.path for each in tried} == {"unet.mid_block", "unet.down_blocks.0", "unet.down_blocks.1",
                                             "unet.up_blocks.0", "unet.up_blocks.1"}  # fmt: skip
    assert len(seen) == 50 and sum(each.is_default for each in tried) == 1
    middle = next(each for each in tried if each.path == "unet.mid_block")
    assert [read.max_codes.shape for read in middle.readings] == [(50, room.NEURONS_PER_CHANNEL * WIDTH)] * 2
    assert [(step.stage, step.state) for step in steps if step.tick is None] == [
        ("images", "begun"), ("images", "finished"), ("layers", "begun"), ("layers", "finished")
    ]  # fmt: skip
    assert [step.tick.done for step in steps if step.tick is not None] == [16, 32, 48, 50, 0, 1, 2, 3, 4, 5]
    found = ranked(tried)
    assert [rating.rank for rating in found] == [1, 2, 3, 4, 5]
    for rating in found:
        assert 0 <= rating.score <= 1 and 0 <= rating.concentration < 1 and 0 <= rating.stability <= 1


def test_what_cannot_be_captured_is_listed_with_the_reason(sd_folder, clip_folder, monkeypatch, capsys):
    def few(pipe):
        return [room.find_hookpoint(pipe, path) for path in ("unet.time_embedding", "unet.mid_block")]

    monkeypatch.setattr(room, "candidates", few)
    args = ["hookpoints", str(sd_folder), "--search", "--n-images", "50", "--prompt", "a cat", "--device", "cpu"]
    assert cli.main([*args, "--embedder", str(clip_folder)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "50 images of “a cat”, two autoencoders for each hookpoint"
    assert lines[4].startswith("│    1 │ unet.mid_block (default) │ 0.")
    assert lines[5].split("│")[1:4] == ["      ", " unet.time_embedding      ", "  none "]
    assert lines[7].startswith("unet.time_embedding: hookpoint: unet.time_embedding puts out [")
    assert lines[-1] == f"next: raigen audit 'a cat' --model {sd_folder} --hookpoint unet.mid_block"
    assert [line.split(":")[0] for line in err.splitlines()] == ["images", "layers"]

    monkeypatch.setattr(room, "candidates", lambda pipe: few(pipe)[:1])
    assert cli.main([*args, "--embedder", str(clip_folder)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("raigen: hookpoint: none of 1 candidates can be tried; unet.time_embedding: hookpoint: unet")


def test_the_ratings_as_json(monkeypatch, capsys):
    def found(*args):
        return [HookpointRating("unet.mid_block", True, 1, 0.5, readings=(object(),))]
        yield

    monkeypatch.setattr(room, "search", found)
    assert cli.main(["hookpoints", "portraits", "--search", "--prompt", "a cat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompt"] == "a cat" and [(each["path"], each["score"]) for each in told["hookpoints"]] == [
        ("unet.mid_block", 0.5)
    ]


def test_the_table(capsys):
    ratings = [
        HookpointRating("unet.up_blocks.0", False, 1, 0.2504, 0.91, 0.85, 0.104, 10.0),
        HookpointRating("unet.mid_block", True, 2, 0.19, 0.5, 0.7, 0.0, 8.5),
        HookpointRating("unet.[odd]", False, reason="hookpoint: no grid"),
    ]
    print_search(ratings, "portraits", SearchConfig())
    assert (
        capsys.readouterr().out
        == """\
300 images of “a photo of a doctor”, two autoencoders for each hookpoint
┏━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━┳━━━━━━━━┓
┃ rank ┃ hookpoint                ┃ score ┃ stability ┃ concentration ┃ dead ┃ listed ┃
┡━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━╇━━━━━━━━┩
│    1 │ unet.up_blocks.0         │ 0.250 │       85% │           91% │  10% │     10 │
│    2 │ unet.mid_block (default) │ 0.190 │       70% │           50% │   0% │    8.5 │
│      │ unet.[odd]               │  none │           │               │      │        │
└──────┴──────────────────────────┴───────┴───────────┴───────────────┴──────┴────────┘
unet.[odd]: hookpoint: no grid
ranked by the mean of the ranks in score, stability and concentration; no label is used
next: raigen audit 'a photo of a doctor' --model portraits --hookpoint unet.up_blocks.0
"""
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--n-images", "3"), "n_images: expected at least 50: fewer images cannot show what is rare; got 3"),
        (("--prompt", " "), "prompt: expected a text that is not empty; got ' '"),
        (("--batch-size", "0"), "batch_size: expected 1 or more; got 0"),
        (("--embedder", "./nowhere"), "./nowhere"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(args, message, sd_folder, capsys):
    assert cli.main(["hookpoints", str(sd_folder), "--search", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("raigen: ") and message in err and err.count("\n") == 1
