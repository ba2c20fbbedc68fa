"""Amplification on a tiny real pipeline: identity at 0, images made once, costs, controls, errors; once for real."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

import raigen
from raigen.amplification import measuring as looking
from raigen.amplification import rendering as methods
from raigen.amplification.causal import NEURONS
from raigen.amplification.rendering import BrokenImageError, Recipe, Renderer, turned_to
from raigen.amplification.steering import unit_of
from raigen.auditing.audit import run_stage
from raigen.cli.main import main
from raigen.config import AmplifyConfig, SAEConfig
from raigen.diffusion import recorded
from raigen.diffusion.generation import Generated
from raigen.errors import RaigenError
from raigen.judging.judges import Verdicts
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE
from raigen.stats import above_controls
from tests.support.tiny_audit import tiny_audit

PROMPT, N = "a photo of a doctor", 6
FEW = {"n_control_neurons": 5, "n_control_directions": 10, "n_control_images": 8}  # controls of --causal
PIPES = {}  # loaded once


def labeled(run, *labels):
    """Names the attributes; the first has a suggested prompt too, the others are to be prompted by their labels."""
    entries = [
        asdict(replace(a, label=label, suggested_prompt=f"{PROMPT} {label}" if a.rank == 1 else None))
        for a, label in zip(run.attributes, labels, strict=False)
    ]
    write_text(run.attributes_path, json.dumps(entries))


@pytest.fixture(scope="module")
def finished(sd_folder, clip_folder, tmp_path_factory):
    """A finished audit of the tiny model; its first two attributes have labels, the third has none."""
    run = tiny_audit(PROMPT, sd_folder, clip_folder, tmp_path_factory.mktemp("runs") / "run", n_images=60,
                     n_attributes=3)  # fmt: skip
    labeled(run, "holding a cat", "in the snow", None)
    return run


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.dir, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def made(monkeypatch):
    """The calls of `generate`: (prompt, seeds) each. The pipeline is one, so that its hooks can be counted."""
    calls, pipes, generate, load = [], [], methods.generate, recorded.load_pipeline

    def counted(pipe, prompt, seeds, *rest):
        calls.append((prompt, list(seeds)))
        return generate(pipe, prompt, seeds, *rest)

    def loaded(model, *args):
        pipes.append(PIPES.get(model) or PIPES.setdefault(model, load(model, *args)))
        return pipes[-1]

    monkeypatch.setattr(methods, "generate", counted)
    monkeypatch.setattr(recorded, "load_pipeline", loaded)
    yield calls
    modules = [module for pipe in pipes for module in pipe.unet.modules()]
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules) == 0


@pytest.fixture
def judged(monkeypatch):
    """A judge that sees what `shows(sample, label)` says."""

    class StandIn:
        name = "a stand-in"

        def __init__(self, shows):
            self.shows = shows

        def verdicts(self, images, subjects, tell=None):
            seen = [np.array([float(self.shows(sample, subject.label)) for sample in images.samples])
                    for subject in subjects]  # fmt: skip
            return [Verdicts(self.name, values, np.ones(len(values))) for values in seen]

    def by(shows):
        monkeypatch.setattr(looking, "judges_of", lambda *args: [StandIn(shows)])

    return by


def bytes_of(run, point):
    return [(run.dir / file).read_bytes() for file in point["files"]]


@pytest.mark.parametrize("method", ["steer", "set"])
def test_strength_zero_is_the_twin_bit_for_bit_and_more_is_not(run, made, method):
    judge = ("python:tests.support.bright_judge:shows",)
    (entry,) = raigen.amplify(run, attribute=1, method=method, strength=(0, 4), n_images=N, batch_size=4, judge=judge)
    zero, four = entry["points"]
    assert bytes_of(run, zero) == bytes_of(run, entry["base"]) and zero["fidelity"]["mean"] == pytest.approx(1)
    assert zero["gain"]["difference"] == 0 and zero["diversity"] == entry["base"]["diversity"]
    assert bytes_of(run, four) != bytes_of(run, entry["base"]) and four["fidelity"]["mean"] < 1
    assert json.loads(run.amplification_path(f"{entry['neuron']}-{method}").read_text()) == entry
    assert four["readable"] is None and [row["label"] for row in four["off_target"]] == ["in the snow"]
    assert repr(entry).startswith(f"Amplification(1. neuron {entry['neuron']}: “holding a cat” by {method}; presence ")
    assert repr(entry).count("\n") == 0 and " unsteered, at strength 0: " in repr(entry) and ", 4: " in repr(entry)
    assert four["presence"]["n"] == N and four["n_made"] == N and four["seconds_per_image"] > 0


def test_a_stopped_amplification_makes_no_image_twice(run, made, finished):
    def stop(tick):
        if len(made) == 3:  # one batch into the first strength
            raise KeyboardInterrupt

    options = {"attribute": 1, "strength": (1, 2), "n_images": N, "batch_size": 3}
    with pytest.raises(KeyboardInterrupt):
        raigen.amplify(run, progress=stop, **options)
    (entry,) = raigen.amplify(run, **options)
    seeds = [seed for _, batch in made for seed in batch]
    assert len(seeds) == 3 * N and [seeds.count(seed) for seed in set(seeds)] == [3] * N
    assert raigen.amplify(run, **options)[0]["points"] == entry["points"] and len(made) == 6
    (more,) = raigen.amplify(run, **options | {"strength": (3,)})
    assert len(made) == 8 and [point["strength"] for point in more["points"]] == [1, 2, 3]
    (other,) = raigen.amplify(run, **options | {"strength": (3,), "steps": (0, 1)})
    assert len(made) == 10 and [point["strength"] for point in other["points"]] == [3]


def test_a_damaged_image_is_made_again(run, made):
    options = {"attribute": 1, "strength": (1,), "n_images": N, "batch_size": 3}
    (before,) = raigen.amplify(run, **options)
    path = run.dir / before["points"][0]["files"][4]
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    raigen.amplify(run, **options)
    assert made[-1] == (PROMPT, [2_000_000_004]) and path.read_bytes()[-8:] == whole[-8:]


def kept_codes(run, name):
    """[image, neuron] of the unsteered images, which lie in a file for each batch."""
    files = sorted((run.amplified_dir / "base").glob(f"*/{name}/*.safetensors"))
    batches = [run.read_tensors(file, "amplify") for file in files]
    indices = torch.cat([batch["indices"] for batch in batches])
    assert indices.tolist() == list(range(len(indices))) and len(files) > 1
    return torch.cat([batch["codes"] for batch in batches]).numpy()


def test_select_keeps_the_strongest_of_its_pool_and_costs_what_it_made(run, made, judged):
    judged(lambda sample, label: sample.index % 4 == 0)
    (entry,) = raigen.amplify(run, attribute=2, method="select", strength=(4,), n_images=N, batch_size=8)
    (point,) = entry["points"]
    assert point["n_made"] == 4 * N == sum(len(seeds) for _, seeds in made)
    codes = kept_codes(run, "codes")[:, entry["neuron"]]
    kept = [int(file[-10:-4]) for file in point["files"]]
    assert kept == sorted(kept) and min(codes[kept]) >= max(np.delete(codes, kept))
    hits = sum(index % 4 == 0 for index in kept)
    assert point["cost"] == (4 * N / hits if hits else None) and entry["base"]["presence"]["hits"] == 2
    assert [half["n"] for half in point["halves"]] == [N // 2, N // 2]
    assert sum(half["hits"] for half in point["halves"]) == hits
    assert point["unsteered_cost"] == 3 and point["fidelity"]["mean"] == pytest.approx(1)


@pytest.mark.parametrize("score", ["coherent", "published"])
def test_select_sees_a_image_as_discovery_does(run, score):
    if score == "published":  # which takes the mean over the positions, of coarse neurons only
        run_stage(run, "discover", replace(run.config.discover, score=score), redo=True)
    store = ActivationStore(run.activations_dir)
    stored = torch.cat([chunk.activations for chunk in store.step(store.step_indices[-1])]).float()
    studio = Renderer(run, AmplifyConfig(attribute=2))
    codes = studio._codes_of(Generated([], stored[:, None], None, ()))
    kept = run.read_tensors(run.codes_path, "discover")["image_codes"]
    assert (kept > 0).any() and torch.allclose(codes, kept, atol=1e-5)


@pytest.mark.parametrize("score", ["coherent", "published"])
def test_black_images_count_neither_for_the_scale_nor_for_the_contrast(run, score):
    neuron = run.attributes[0].neuron
    black = int(run.image_codes()[:, neuron].argmax())  # the strongest of all
    manifest = json.loads(run.manifest_path.read_text())
    manifest["stages"]["capture"]["facts"]["black_images"] = [black]
    write_text(run.manifest_path, json.dumps(manifest))
    run_stage(run, "discover", replace(run.config.discover, score=score), redo=True)
    store = ActivationStore(run.activations_dir)
    last = torch.cat([chunk.activations for chunk in store.step(store.step_indices[-1])])
    sae = MatryoshkaSAE.load(run.sae_dir)
    codes = sae.max_codes(last)[:, neuron].detach()
    codes[black] = -1
    top = codes.argsort(descending=True, stable=True)[:10]
    studio, others = Renderer(run, AmplifyConfig(attribute=1)), torch.arange(len(last)) != black
    assert studio.scale(neuron) == unit_of(run, neuron) == pytest.approx(codes[top].mean().item())
    torch.testing.assert_close(studio.pattern(neuron), last[top].mean(0) - last[others].mean(0))


def test_codes_of_another_score_are_not_taken_for_those_of_this_one(run, made):
    raigen.amplify(run, attribute=1, method="select", strength=(2,), n_images=N)
    run_stage(run, "discover", replace(run.config.discover, score="published"), redo=True)
    run_stage(run, "annotate", run.config.annotate)
    labeled(run, "holding a cat", "in the snow", None)
    (entry,) = raigen.amplify(run, attribute=1, method="select", strength=(2,), n_images=N)
    codes = kept_codes(run, "means")[:, entry["neuron"]]
    kept = [int(file[-10:-4]) for file in entry["points"][0]["files"]]
    assert min(codes[kept]) >= max(np.delete(codes, kept))


def test_a_share_of_the_suggested_prompt(run, made, judged):
    judged(lambda sample, label: label in sample.prompt)
    (entry,) = raigen.amplify(run, attribute=1, method="prompt", strength=(0.5, 1), n_images=N)
    half, whole = entry["points"]
    assert (half["presence"]["hits"], whole["presence"]["hits"]) == (N // 2, N) and half["cost"] == 2
    assert entry["recipe"]["prompt"] == f"{PROMPT} holding a cat" and half["gain"]["difference"] == 0.5
    assert sum(len(seeds) for prompt, seeds in made if "cat" in prompt) == N  # those of the half are among them
    assert half["lift"] is None  # nothing to be a multiple of


def test_a_mixture_hits_its_targets_on_other_seeds(run, made, judged):
    judged(lambda sample, label: label in sample.prompt)
    options = {"attribute": (1, 2), "method": "mix", "n_images": 20, "batch_size": 20}
    (entry,) = raigen.amplify(run, targets=(0.1, 0.3), **options)
    assert [row["share"] for row in entry["prompts"]] == pytest.approx([0.6, 0.1, 0.3])
    prompts = [PROMPT, f"{PROMPT} holding a cat", f"{PROMPT}, in the snow"]  # as suggested, else by the label
    assert [row["prompt"] for row in entry["prompts"]] == prompts
    assert [row["presence"]["rate"] for row in entry["attributes"]] == [0.1, 0.3]
    assert repr(entry) == "Amplification(mix of 3 prompts for “holding a cat”, “in the snow”)"
    later = [seed for _, seeds in made[3:] for seed in seeds]
    assert sorted(later) == list(range(2_000_000_020, 2_000_000_040))
    with pytest.raises(RaigenError, match=r"targets: no mixture of these prompts gives .*; the nearest gives"):
        raigen.amplify(run, targets=(0.9, 0.9), **options)


def test_controls_are_as_strong_and_point_elsewhere(run, made):
    (direction,) = raigen.amplify(run, attribute=1, method="random-direction", strength=(2,), n_images=2)
    (neuron,) = raigen.amplify(run, attribute=1, method="random-neuron", strength=(2,), n_images=2)
    listed = {attribute.neuron for attribute in run.attributes}
    assert not listed.intersection(neuron["recipe"]["neurons"]) and direction["recipe"]["neurons"][0] in listed
    sae, row = MatryoshkaSAE.load(run.sae_dir), direction["neuron"]
    turned = turned_to(sae, Recipe("p", (row,), (1.0,), (1.0,), direction_seed=direction["recipe"]["direction_seed"]))
    assert turned.W_dec[row].detach().norm() == pytest.approx(sae.W_dec[row].detach().norm().item(), abs=1e-5)
    assert abs((turned.W_dec[row].detach() @ sae.W_dec[row].detach()).item()) < 0.9
    others = [index for index in range(sae.config.d_sae) if index != row]
    assert torch.equal(turned.W_dec[others], sae.W_dec[others])


def test_the_contrast_is_that_of_the_ten_strongest_images_and_its_controls_are_as_large(run, made):
    studio = Renderer(run, AmplifyConfig(attribute=(1,), device="cpu"))
    neuron = run.attributes[0].neuron
    store = ActivationStore(run.activations_dir)
    last = torch.cat([chunk.activations for chunk in store.step(store.step_indices[-1])])
    with torch.no_grad():
        codes = torch.stack([studio.sae.encode(tokens).amax(0) for tokens in last])[:, neuron]
    top = codes.argsort(descending=True, stable=True)[:10]
    pattern = studio.pattern(neuron)
    torch.testing.assert_close(pattern, last[top].mean(0) - last.mean(0))
    drawn = studio.pattern(neuron, direction_seed=3)
    torch.testing.assert_close(drawn.norm(dim=1), pattern.norm(dim=1))
    assert torch.cosine_similarity(drawn, pattern, dim=1).abs().mean() < 0.6
    entries = [raigen.amplify(run, attribute=1, method=method, strength=(0, 1), n_images=2)[0]
               for method in ("contrast", "random-pattern", "random-contrast")]  # fmt: skip
    assert [entry["recipe"]["method"] for entry in entries] == ["contrast"] * 3
    assert [entry["recipe"]["direction_seed"] is None for entry in entries] == [True, False, True]
    assert entries[2]["recipe"]["neurons"] != entries[0]["recipe"]["neurons"] == [neuron]
    read = lambda files: [(run.dir / file).read_bytes() for file in files]  # noqa: E731
    for entry in entries:
        unmoved, moved = (read(point["files"]) for point in entry["points"])
        assert unmoved == read(entry["base"]["files"]) != moved


def test_causal_scores_by_contrast_have_controls_of_their_own(run, made, judged):
    cat = run.attributes[0]
    judged(lambda sample, label: label == cat.label and f"/{cat.neuron}-contrast/" in sample.file)
    entries = raigen.amplify(run, causal=True, method="contrast", n_images=8, **FEW)
    assert [entry["method"] for entry in entries] == ["contrast"] * 2
    assert run.attributes[0].causal.method == "contrast" and not run.attributes[0].causal.correlates_only
    with pytest.raises(RaigenError, match="method: expected steer or contrast with causal; got 'set'"):
        raigen.amplify(run, causal=True, method="set")


def test_causal_scores_go_into_the_list_and_the_table(run, made, judged, capsys):
    cat = run.attributes[0]
    judged(lambda sample, label: label == cat.label and f"/{cat.neuron}-steer/" in sample.file)
    few = [f"--{name.replace('_', '-')}={number}" for name, number in FEW.items()]
    args = ["amplify", str(run.dir), "--causal", "--method", "steer", "--n-images", "8", "--strength", "2", *few]
    assert main(args) == 0
    first, second, third = run.attributes
    assert first.causal.strength == 2 and first.causal.over_neuron.difference == 1 and not first.causal.correlates_only
    assert second.causal.correlates_only and second.causal.q == 0.5 and third.causal is None
    assert (first.causal.n_neurons, first.causal.n_directions, first.causal.over_neuron.n) == (5, 10, 8)
    assert first.causal.over_direction.n == 4  # half as many
    assert first.causal.q == pytest.approx(2 * above_controls(8, 8, np.zeros(5, int), np.full(5, 8)))
    out = capsys.readouterr().out
    assert "+100.0%, q 0.024" in out and "correlates only (+0.0%, q 0.5)" in out and "not tried" in out
    assert sum(len(seeds) for _, seeds in made) == 8 * (1 + 5 + 2 * (1 + 10 // 2))  # unsteered and random neurons once
    with pytest.raises(RaigenError, match="controls: expected 1000 or more live neurons that are not listed; got "):
        raigen.amplify(run, causal=True, n_images=2, n_control_neurons=1000)


def test_a_control_that_breaks_the_images_shows_nothing(run, made, judged, monkeypatch):
    judged(lambda sample, label: True)
    make = Renderer.make

    def breaking(self, name, *args):
        if name == NEURONS:
            raise BrokenImageError("makes black images")
        return make(self, name, *args)

    monkeypatch.setattr(Renderer, "make", breaking)
    raigen.amplify(run, attribute=1, causal=True, n_images=4, n_control_neurons=2, n_control_directions=2)
    found = run.attributes[0].causal
    assert found.over_neuron.difference == 1 and found.over_direction.difference == 0 and found.correlates_only


def test_clip_and_autoencoder_are_where_the_pipeline_is_asked_to_be(run, monkeypatch):
    """Not where the audit was: that machine may have had other devices."""
    asked = []
    monkeypatch.setattr(looking, "judges_of", lambda *args: asked.append(args[-1]) or [])
    embedder_of = looking.embedder_of
    monkeypatch.setattr(looking, "embedder_of", lambda run, device: asked.append(device) or embedder_of(run, "cpu"))
    looking.Evaluator(run, AmplifyConfig(attribute=(1,), device="cuda:7"))
    assert asked == ["cuda:7", "cuda:7"]
    places = {"cuda:7": torch.device("meta")}
    monkeypatch.setattr(methods, "resolve_device", places.get)
    assert Renderer(run, AmplifyConfig(attribute=(1,), device="cuda:7")).sae.W_dec.device == torch.device("meta")


def test_the_command_line_prints_the_curve(run, made, capsys):
    args = ["amplify", str(run.dir), "--attribute", "1", "--strength", "0.5,1", "--n-images", "2"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "holding a cat (neuron" in out and "unsteered" in out and out.count("│") == 30
    assert err.startswith("amplify: done in ") and "report: done in " in err
    assert out.splitlines()[-1] == f"report: {run.report_path}" and "Amplified" in run.report().read_text()


def as_families(run):
    """The run, as if its attributes had been found by looking around odd images."""
    run.write_attributes([replace(attribute, is_family=True) for attribute in run.attributes])


def gone(run, stage):
    """The run as it stands when it was stopped before `stage`."""
    run.forget(stage)
    shutil.rmtree(run.sae_dir)


@pytest.mark.parametrize(
    ("flags", "spoil", "message"),
    [
        (["--attribute", "9"], None, "attribute: expected the rank of a listed attribute, 1 to 3; got 9"),
        (["--attribute", "0"], None, "attribute: expected the rank of a listed attribute, 1 to 3; got 0"),
        ([], None, "attribute: expected the rank of a listed attribute; got ()"),
        (["--attribute", "3", "--method", "prompt"], None, "attribute: 3 has no label, so no judge can look for it"),
        (["--attribute", "3"], None, "attribute: 3 has no label, so no judge can look for it"),
        (["--attribute", "1", "--steps", "0", "60"], None, "steps: expected denoising steps from 0 to "),
        (["--attribute", "1"], lambda run: gone(run, "train"), "train has not finished; run: raigen train "),
        (["--attribute", "1"], lambda run: shutil.rmtree(run.sae_dir), "expected a whole autoencoder; it is broken "),
        (["--attribute", "1"], lambda run: run.forget("annotate"), "annotate has not finished; run: raigen annotate "),
        (["--attribute", "1"], lambda run: run.write_attributes([]), "discovery listed no attribute"),
        (["--attribute", "1", "--method", "steer"], lambda run: as_families(run), "and has no neuron. Take --method "),
    ],
)
def test_what_cannot_be_amplified_is_one_clear_error(run, capsys, flags, spoil, message):
    if spoil:
        spoil(run)
    assert main(["amplify", str(run.dir), *flags, "--n-images", "2", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("raigen: ") and err.count("\n") == 1 and message in err
    assert run.amplifications() == []


def test_the_report_is_outdated_by_what_it_does_not_show_yet(run, made):
    assert run.is_done("report", run.config.report)
    (entry,) = raigen.amplify(run, attribute=1, strength=(1,), n_images=2)
    assert entry["method"] == "contrast"  # which is what brings attributes
    assert not run.is_done("report", run.config.report)
    assert main(["report", str(run.dir)]) == 0 and "Amplified" in run.report().read_text()


def test_a_strength_that_breaks_the_images_stops_after_what_was_good(run, made):
    with pytest.raises(RaigenError, match=r"1e\+38 makes numbers that are not finite; the last good strength is 1$"):
        raigen.amplify(run, attribute=1, method="steer", strength=(1e38, 1), n_images=2)
    name = f"{run.attributes[0].neuron}-steer"
    entry = json.loads(run.amplification_path(name).read_text())
    assert [point["strength"] for point in entry["points"]] == [1] and entry["stopped"]["last_good"] == 1


def test_black_images_stop_it_too(run, made, monkeypatch):
    black, generate = Image.new("RGB", (16, 16)), methods.generate

    def darker(pipe, prompt, seeds, settings, *hookpoint):
        found = generate(pipe, prompt, seeds, settings, *hookpoint)
        return found if hookpoint else found._replace(images=[black] * len(seeds))

    monkeypatch.setattr(methods, "generate", darker)
    with pytest.raises(RaigenError, match="strength: 1 makes black images; the last good strength is 0"):
        raigen.amplify(run, attribute=1, strength=(1,), n_images=2)


def test_an_autoencoder_of_another_width_is_refused(run, made):
    other = MatryoshkaSAE(SAEConfig(7, 160, (16, 144), 4))
    other.initialize(torch.randn(8, 7))
    other.save(run.sae_dir)
    with pytest.raises(RaigenError, match="expected width 7, for which this autoencoder was made; got 16"):
        raigen.amplify(run, attribute=1, n_images=2)


def test_a_mask_and_further_neurons_are_part_of_the_recipe(run, made, tmp_path):
    Image.new("L", (4, 4), 255).save(tmp_path / "all.png")
    other = next(a.neuron for a in run.attributes if a.rank == 2)
    options = {"attribute": 1, "strength": (2,), "n_images": 2}
    (plain,) = raigen.amplify(run, **options)
    (masked,) = raigen.amplify(run, mask=str(tmp_path / "all.png"), **options)
    (both,) = raigen.amplify(run, also=(other,), **options)
    assert bytes_of(run, plain["points"][0]) == bytes_of(run, masked["points"][0])
    assert masked["recipe"]["mask"] and list(both["recipe"]["neurons"][1:]) == [other]
    assert bytes_of(run, both["points"][0]) != bytes_of(run, plain["points"][0]) and len(made) == 4
    with pytest.raises(RaigenError, match="mask: expected an image"):
        raigen.amplify(run, mask=str(tmp_path / "none.png"), **options)


def test_training_anew_drops_what_was_made_of_the_old_one(run, made):
    raigen.amplify(run, attribute=1, strength=(1,), n_images=2)
    run.forget("annotate")
    assert len(run.amplifications()) == 1
    run.forget("train")
    assert run.amplifications() == [] and not run.amplified_dir.exists()


def test_the_bundled_model_is_measured_by_its_world(tmp_path):
    run = raigen.audit(PROMPT, run_dir=tmp_path / "run", n_images=50, n_fresh_images=2, num_inference_steps=2,
                       min_images=2, n_attributes=2, d_sae=160, n_label_images=0,
                       device="cpu")  # fmt: skip
    labeled(run, "holding a cat", "in the snow")
    (entry,) = raigen.amplify(run, attribute=1, strength=(0, 1), n_images=4)
    zero, one = entry["points"]
    assert bytes_of(run, zero) == bytes_of(run, entry["base"]) != bytes_of(run, one)
    assert one["presence"]["judge"] == "portraits judge" and one["readable"]["n"] == 4
    assert one["right_profession"]["n"] == one["readable"]["hits"]
    assert "holding a cat" not in [row["label"] for row in one["off_target"]]
    assert len(zero["off_target"]) in (0, 33) and all(row["difference"] == 0 for row in zero["off_target"])
    assert AmplifyConfig(attribute=1).judge == ("auto",)
