"""A text that CLIP cuts is told: a label behind a prompt that is too long is unscored, never 0 %."""

import numpy as np
import pytest

from raigen.comparison.verdicts import Pool, PooledClipJudge, directions
from raigen.config import AnnotateConfig
from raigen.discovery.embeddings import Embedder
from raigen.errors import RaigenError
from raigen.judging.annotate import annotate, fitting
from raigen.judging.judges import ClipJudge, Subject, judge_of
from raigen.judging.vlm.answers import Answers, Budget
from raigen.runs.study_records import Axis
from tests.support.run_folder import make_run

LONG = "a photo of a doctor " + "with a kind face standing in a bright room near a window " * 4
WHY = "the prompt leaves no room for the label in the 32 tokens that CLIP reads"


@pytest.fixture(scope="module")
def embedder():
    return Embedder("portraits", "cpu")


def test_a_text_that_is_cut_is_told(embedder):
    assert embedder.n_tokens == 32
    same = embedder.texts([LONG, LONG + ", wearing glasses"])
    assert np.array_equal(same[0], same[1])  # so nothing can be judged by their difference
    texts = ["red " * n + "hat" for n in range(1, 60)]
    first = embedder.cut_texts(texts).index(True)
    assert first > 3 and embedder.cut_texts(texts) == [index >= first for index in range(59)]
    vectors = embedder.texts(texts)  # from the first that is cut on, all are alike
    assert all(np.allclose(vectors[first + 1], vector, atol=1e-6) for vector in vectors[first + 1 :])
    assert not np.allclose(vectors[first - 2], vectors[first - 1], atol=1e-6)
    assert embedder.cut_texts([]) == [] and embedder.cut_texts(["a", LONG, "b"]) == [False, True, False]


@pytest.fixture
def long_run(tmp_path, monkeypatch, embedder):
    run = make_run(tmp_path / "run")
    manifest = run.manifest
    manifest["stages"]["capture"]["config"]["prompt"] = LONG
    manifest["stages"]["discover"]["facts"]["embedder"] = "portraits"
    run._write_manifest(manifest)
    vectors = np.random.default_rng(0).normal(size=(len(run.samples()), embedder.d_embed)).astype(np.float32)
    monkeypatch.setattr(type(run), "embeddings", lambda self: vectors)
    return run


def test_a_label_behind_a_long_prompt_is_unscored_with_the_reason(long_run):
    images = [long_run.read_image(sample) for sample in long_run.samples()[:3]]
    judge = judge_of("clip", long_run, Answers(long_run.answers_path, Budget(AnnotateConfig())), AnnotateConfig())
    assert isinstance(judge, ClipJudge)
    (found,) = judge.verdicts(images, [Subject("wearing glasses", 4, long_run.attributes[0].top_images)])
    assert np.isnan(found.shows).all() and found.why == dict.fromkeys(range(3), WHY)


def test_a_name_behind_a_long_prompt_is_not_given(long_run, embedder):
    with pytest.raises(RaigenError, match=r"a prompt that leaves room for a name in the 32 tokens that CLIP reads"):
        list(annotate(long_run, AnnotateConfig()))
    nearly = max(
        ("red " * n for n in range(60)), key=lambda text: (not any(embedder.cut_texts([f"{text}, a hat"])), text)
    )
    assert fitting(["a hat", "a hat " * 9, "a hat"], nearly, embedder) == ["a hat", "a hat"]


def test_a_closed_set_behind_a_long_prompt_is_unscored(long_run):
    images = [long_run.read_image(sample) for sample in long_run.samples()[:3]]
    axis = Axis("closed", "eyes", ("glasses", "no glasses", "shades"), (1 / 3,) * 3)
    for prompt, is_scored in ((LONG, False), ("a photo of a doctor", True)):
        judge = PooledClipJudge(Pool([long_run], {}, [axis]), prompt)
        for found in judge.verdicts(images, [Subject(label) for label in axis.labels]):
            assert (not np.isnan(found.shows).any()) is is_scored
            assert is_scored or found.why == dict.fromkeys(range(3), WHY)


def test_labels_are_alike_or_not_whatever_the_prompt_is(embedder):
    short, long = (
        directions(embedder, prompt, ["with glasses", "with Glasses", "a cat"]) for prompt in ("a photo", LONG)
    )
    assert np.allclose(short, long) and float(long[0] @ long[1]) > 0.9 > float(long[0] @ long[2])
