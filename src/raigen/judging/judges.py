"""Says of each image whether it shows an attribute: a planted world's judge, CLIP, a vision-language model."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from raigen.config import CLIP, AskConfig, CaptureConfig, ModelAddress, address_of, labels_of
from raigen.config.fields import FILE, PYTHON
from raigen.errors import RaigenError
from raigen.judging.clip_judge import ClipJudge
from raigen.judging.own_judges import FileJudge, FunctionJudge
from raigen.judging.protocol import (  # other rooms find all of them here
    Images,
    Judge,
    Look,
    StoredImages,
    Subjects,
    Verdicts,
    unscored,
    without_black,
)
from raigen.judging.protocol import Subject as Subject
from raigen.judging.vlm.answers import Answers, Reply, Usage
from raigen.judging.vlm.ask import Job, Plan, Result, ask_all
from raigen.judging.vlm.ask import plan as plan_of
from raigen.judging.vlm.questions import presence_question, read_presence
from raigen.runs.run import Run
from raigen.runs.steps import Tell, Tick
from raigen.world.truth import truth_of
from raigen.world.worlds import WORLDS, World, world_of

NOT_KNOWN = "the judge does not know this attribute"


def judge_of(name: str, run: Run, answers: Answers, config: AskConfig, device: str | None = None) -> Judge:
    """The judge of a name or an address, for images of `run`. `answers` keeps what a vision-language model says. CLIP
    and models in this process run on the device of the run, unless another is given.

    Raises RaigenError for a text that is neither.
    """
    if name in WORLDS:
        return WorldJudge(WORLDS[name])
    if name == CLIP:
        return ClipJudge(run, device)
    if name.startswith(PYTHON):
        return FunctionJudge(name)
    if name.startswith(FILE):
        return FileJudge(name, run)
    return VlmJudge(address_of(name), answers, config, device or run.config.capture.device)


def judges_of(
    names: Sequence[str], run: Run, answers: Answers, config: AskConfig, device: str | None = None
) -> list[Judge]:
    """The judges of `names`, each once. Raises RaigenError where one cannot judge this run."""
    return [judge_of(name, run, answers, config, device) for name in judge_names(names, run.config.capture)]


def judge_names(names: Sequence[str], capture: CaptureConfig) -> list[str]:
    """The names of judges, each once; `auto` becomes the world's judge for images of a planted world, else CLIP.

    Raises RaigenError where one cannot judge images of this capture.
    """
    world = world_shown(capture)
    found = [(world.name if world else CLIP) if name == "auto" else name for name in names]
    for name in found:
        if name in WORLDS and WORLDS[name] is not world:
            raise _not_in_world(name, capture)
    return list(dict.fromkeys(found))


def world_shown(capture: CaptureConfig) -> World | None:
    """The planted world of the images, whose own judge can read them; None for images of no world."""
    world = world_of(capture.model)
    return world if world and capture.prompt in world.prompts else None


def need_world_prompt(name: str, capture: CaptureConfig) -> None:
    """Raises RaigenError unless the prompt is one of this planted world's, whatever the model is."""
    if capture.prompt not in WORLDS[name].prompts:
        raise _not_in_world(name, capture)


def _not_in_world(name: str, capture: CaptureConfig) -> RaigenError:
    return RaigenError(
        f"judge: expected clip or a vision-language model; {name!r} can judge only images of the planted world "
        f"and its prompts, this run is {capture.model!r} with {capture.prompt!r}"
    )


def given_labels(file: str) -> list[str]:
    """The attributes in a text file, one a line, each once. Lines that begin with # are comments.

    Raises RaigenError when the file is missing or names no attribute.
    """
    path = Path(file)
    if not path.is_file():
        raise RaigenError(f"attributes: expected a text file with one attribute a line; there is no file {file!r}")
    given = labels_of(path)
    if not given:
        raise RaigenError(f"attributes: expected one attribute a line; {path} has none")
    return given


class WorldReading(NamedTuple):
    """What images of a planted world show: the `verdicts` on every phrase of the world, which images are `readable`,
    and the prompt of the world that each of them fits best."""

    verdicts: dict[str, Verdicts]
    readable: Bool[np.ndarray, " image"]
    prompts: Shaped[np.ndarray, " image"]


def read_world(images: Images, world: World) -> WorldReading:
    """Everything that the world's judge reads off images. Those that cannot be read are unscored.

    Raises RaigenError when there is no image.
    """
    judgment = world.judge(images)
    why = dict.fromkeys(np.flatnonzero(~judgment.readable).tolist(), "the image cannot be read")
    shows = np.where(judgment.readable[:, None], judgment.shows, np.nan)
    columns = zip(shows.T, judgment.confidence.T.astype(float), strict=True)
    verdicts = without_black(images, [Verdicts(WorldJudge(world).name, *column, why) for column in columns])
    phrases = [value.phrase for value in world.values]
    return WorldReading(
        dict(zip(phrases, verdicts, strict=True)), judgment.readable, np.array(world.prompts)[judgment.profession]
    )


class WorldJudge:
    """The judge of a planted world. It knows labels that are phrases of the world; all others are unscored."""

    def __init__(self, world: World):
        self._world = world
        self.name = f"{world.name} judge"

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The likeliest choice of each field. There is no progress to tell."""
        known = read_world(images, self._world).verdicts
        unknown = without_black(images, [unscored(self.name, len(images), NOT_KNOWN)])[0]
        return [known.get(subject.label, unknown) for subject in subjects]


def truth_of_run(run: Run, world: World) -> dict[str, Any]:
    """What truth.json holds: which listed neurons of a run of a planted world were right."""
    index_of = run.index_of
    top = [[index_of[file] for file in attribute.top_images] for attribute in run.attributes]
    judgment = world.judge(StoredImages(run, run.all_samples()))
    neurons, n_audited = [attribute.neuron for attribute in run.attributes], len(run.samples())
    return truth_of(judgment, top, neurons, run.config.capture.prompt, n_audited, world)


class VlmJudge:
    """A vision-language model, asked about each image and label. Answers are kept, so no question is asked twice.

    An image is unscored when the answer is "unsure", cannot be read, or is missing. A model in this process runs on
    `device`.
    """

    def __init__(self, address: ModelAddress, answers: Answers, config: AskConfig, device: str = "auto"):
        self.name = address.name
        self.address, self.answers, self.config, self.device = address, answers, config, device

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The model's answers; `tell` is called after each of them.

        Raises RaigenError when the model cannot be asked, or the budget is spent.
        """
        labels = _labels(subjects)
        shows = {label: np.full(len(images), np.nan) for label in labels}
        confidence = {label: np.full(len(images), np.nan) for label in labels}
        why: dict[str, dict[int, str]] = {label: {} for label in labels}
        for done, ((index, label), reply, reason) in enumerate(self.ask(self.questions(images, subjects)), 1):
            verdict = read_presence(reply.text) if reply else None
            if verdict in ("yes", "no"):
                shows[label][index] = verdict == "yes"
                if reply and reply.yes_share is not None:
                    confidence[label][index] = reply.yes_share if verdict == "yes" else 1 - reply.yes_share
            else:
                why[label][index] = reason or ("the judge is unsure" if verdict else _unreadable(reply))
            if tell is not None:
                tell(Tick(done, self.n_questions(images, subjects), self.name))
        found = {label: Verdicts(self.name, shows[label], confidence[label], why[label]) for label in labels}
        return without_black(images, [found[subject.label] for subject in subjects])

    def n_questions(self, images: Images, subjects: Subjects) -> int:
        """How many `questions` there are."""
        return len(images) * len(_labels(subjects))

    def questions(self, images: Images, subjects: Subjects) -> Iterator[Job]:
        """A question for each image and label, all about one image in a row; the tag is the index and the label."""
        questions = [(label, presence_question(label)) for label in _labels(subjects)]
        for index, image in enumerate(images):
            yield from (Job((image,), question, (index, label)) for label, question in questions)

    def ask(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Asks the questions that have no answer yet: see `raigen.judging.vlm.ask.ask_all`."""
        return ask_all(self.address, jobs, self.answers, self.config, self.device)

    def plan(self, jobs: Iterable[Job]) -> Plan:
        """What asking would take, without asking."""
        return plan_of(self.address, jobs, self.answers)

    @property
    def usage(self) -> Usage:
        """What the answers of the model took so far."""
        return self.answers.usage(self.address)


def asking(judge: Judge, looks: Sequence[Look]) -> Iterator[Tick]:
    """Asks a vision-language model all questions of `looks`, and yields progress; its verdicts then come from the
    answers that are kept. Other judges ask nothing.

    Raises RaigenError when the model cannot be asked, or the budget is spent.
    """
    if isinstance(judge, VlmJudge):
        total = sum(judge.n_questions(*look) for look in looks)
        jobs = chain.from_iterable(judge.questions(*look) for look in looks)
        for done, _ in enumerate(judge.ask(jobs), 1):
            yield Tick(done, total, judge.name)


def _unreadable(reply: Reply | None) -> str:
    return "the answer cannot be read" if reply and reply.text else "the judge refused to answer"


def _labels(subjects: Subjects) -> list[str]:
    return list(dict.fromkeys(subject.label for subject in subjects))
