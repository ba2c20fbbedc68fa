"""What holds for every judge alike, and what it takes to add one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from raigen.comparison.verdicts import Pool, PooledClipJudge
from raigen.config import CLIP, PORTRAITS, AnnotateConfig, AskConfig, CaptureConfig, EvaluateConfig, address_of
from raigen.discovery import embeddings
from raigen.discovery.embeddings import Embedder
from raigen.judging import evaluate as evaluation
from raigen.judging.annotate import annotate
from raigen.judging.judges import (
    Judge,
    Look,
    StoredImages,
    Subject,
    Verdicts,
    asking,
    judge_names,
    judge_of,
    without_black,
)
from raigen.judging.vlm.answers import Answers, Budget
from raigen.runs.files import write_tensors
from raigen.runs.records import Sample
from raigen.runs.steps import Outcome, exhausted
from raigen.runs.study_records import Finding
from tests.support.run_folder import SHOWN, make_run, on_device, portrait, save
from tests.support.tiny_vlm import devices_asked
from tests.support.vlm_server import serving

NAMES = [PORTRAITS, CLIP, "vision-language model", "pooled CLIP"]
TURBAN = "wearing a turban"
BLACK = 1  # the index of the black image


@pytest.fixture
def run(tmp_path):
    """A run after discovery, with real embeddings."""
    run = make_run(tmp_path / "run", until="discover")
    rows = Embedder("portraits", "cpu").images([run.read_image(sample) for sample in run.samples()])
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(rows)})
    config = run.config.discover
    run.begin("discover", config)
    run.finish("discover", Outcome([], {"embedder": "portraits"}), 1.0)
    return run


@pytest.fixture
def images(run):
    """Three more images of the run: a turban, a black one, no turban."""
    found = [save(run, Sample(i, "p", i, f"fresh/{i}.png", ""), portrait(500 + i, SHOWN[0] if i < 2 else None))
             for i in range(3)]  # fmt: skip
    Image.new("RGB", run.read_image(found[BLACK]).size).save(run.dir / found[BLACK].file)
    found[BLACK] = save(run, found[BLACK], (run.dir / found[BLACK].file).read_bytes())
    return StoredImages(run, found, "evaluate")


@pytest.fixture
def judges(run, tmp_path):
    top = run.attributes[0]
    finding = Finding(prompt=run.config.capture.prompt, model=run.config.capture.model, rank=1, neuron=top.neuron,
                      label=TURBAN, minority_score=0.9, suggested_prompt="")  # fmt: skip
    answers, config = Answers(tmp_path / "answers.jsonl"), AskConfig()
    with serving() as server:
        yield {
            PORTRAITS: judge_of(PORTRAITS, run, answers, config),
            CLIP: judge_of(CLIP, run, answers, config),
            "vision-language model": judge_of(server.model, run, answers, config),
            "pooled CLIP": PooledClipJudge(Pool([run], {TURBAN: [finding]}, ()), finding.prompt),
        }


@pytest.mark.parametrize("name", NAMES)
def test_black_images_are_unscored(name, judges, run, images):
    judge, top = judges[name], run.attributes[0]
    (verdicts,) = judge.verdicts(images, [Subject(TURBAN, top.neuron, top.top_images)])
    assert isinstance(judge, Judge) and verdicts.judge == judge.name
    assert np.isnan(verdicts.shows).tolist() == [False, True, False]
    assert verdicts.why[BLACK] == "the image is black" and verdicts.shows[0] == 1


@pytest.mark.parametrize("name", NAMES)
def test_only_a_vision_language_model_is_asked_and_each_label_once(name, judges, images):
    subjects = [Subject(TURBAN), Subject("bald"), Subject(TURBAN, 7)]
    ticks = list(asking(judges[name], [Look(images, subjects)]))
    assert len(ticks) == (2 * len(images) if name == "vision-language model" else 0)


def test_what_was_asked_ahead_is_not_asked_again(run, images, tmp_path):
    """Not even a question that got no reply; the next start may ask it."""
    with serving() as server:
        server.fault = lambda request, count, handler: handler.refuse("too small", 400) if count == 2 else None
        subjects = [Subject(TURBAN), Subject("bald")]
        for more in (6, 1):
            judge = judge_of(server.model, run, Answers(tmp_path / "a.jsonl"), AskConfig(concurrency=1))
            before = len(server.requests)
            ticks = list(asking(judge, [Look(images, subjects)]))
            assert ticks[-1][:2] == (6, 6) and len(server.requests) == before + more
            told = []
            verdicts = judge.verdicts(images, subjects, told.append)
            assert told == ticks and len(server.requests) == before + more
            assert sum("no reply" in why for found in verdicts for why in found.why.values()) == (more == 6)


def test_answers_of_several_runs_share_one_budget(run, images, tmp_path):
    with serving() as server:
        config = AskConfig(max_calls=8)  # two about colors in each run
        budget = Budget(config)
        first, second = (judge_of(server.model, run, Answers(tmp_path / name, budget), config) for name in "ab")
        first.verdicts(images, [Subject(TURBAN)])
        with pytest.raises(Exception, match="max_calls: 8 calls are made"):
            second.verdicts(images, [Subject(TURBAN)])
        assert len(server.requests) == 4


def test_clip_runs_on_the_device_of_the_run(judges, images, run, monkeypatch):
    asked = []

    def resolve(device):
        asked.append(device)
        return torch.device("cpu")

    monkeypatch.setattr(embeddings, "resolve_device", resolve)
    judges[CLIP].verdicts(images, [Subject(TURBAN)])
    assert asked == [run.config.capture.device]


def test_a_model_in_this_process_runs_on_the_device_of_the_run(run, images, tmp_path, monkeypatch):
    """As judge and as annotator, unless another device is given."""
    run = on_device(run, "cuda:1")
    devices, address = devices_asked(monkeypatch), "transformers:some/model"
    for device in (None, "cuda:2"):
        judge = judge_of(address, run, Answers(tmp_path / f"{device}.jsonl"), AskConfig(), device)
        (found,) = judge.verdicts(images, [Subject(TURBAN)])
        assert found.shows[0] == 0
    exhausted(annotate(run, AnnotateConfig(annotator=address)), None)
    assert devices == ["cuda:1", "cuda:2", "cuda:1"]


class RedJudge:
    """A judge of one's own: the whole of it."""

    name = "red"

    def verdicts(self, images, subjects, tell=None):
        reds = np.array([np.asarray(image, float)[..., 0].mean() for image in images])
        found = Verdicts(self.name, (reds > 100).astype(float), np.full(len(reds), np.nan))
        return without_black(images, [found for _ in subjects])


def test_a_judge_of_ones_own_evaluates_a_run(run, monkeypatch):
    """In `judge_of` such a judge takes two lines, and its name one in `raigen.config.fields.JUDGES`."""
    monkeypatch.setattr(evaluation, "judges_of", lambda *args: [RedJudge()])
    attributes = [attribute.unnamed() for attribute in run.attributes]
    run.write_attributes([attributes[0].__class__(**{**vars(attributes[0]), "label": "a red hat"}), *attributes[1:]])
    for index in range(4):
        seed = 1_000_000_000 + run.config.capture.base_seed + index
        sample = Sample(index, run.config.capture.prompt, seed, f"fresh/{index:06d}.png", "")
        sample = save(run, sample, portrait(index, None))
        with run.fresh_samples_path.open("a") as file:
            file.write(json.dumps(sample._asdict()) + "\n")
    run.begin("annotate", run.config.annotate)
    run.finish("annotate", Outcome([], {}), 1.0)
    outcome = exhausted(evaluation.evaluate(run, EvaluateConfig(n_fresh_images=4)), None)
    first = run.attributes[0]
    assert isinstance(RedJudge(), Judge) and outcome.facts["judge"] == first.presence.judge == "red"
    assert first.presence.n == 4 and outcome.facts["answers"] == {}


def test_names_become_judges_each_once():
    world, other = CaptureConfig("a photo of a doctor"), CaptureConfig("a dog")
    assert judge_names(["auto", PORTRAITS, CLIP], world) == [PORTRAITS, CLIP] and judge_names(["auto"], other) == [CLIP]
    assert address_of(judge_names(["scripted:x"], other)[0]).name == "script x"
