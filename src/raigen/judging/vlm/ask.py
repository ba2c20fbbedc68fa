"""Asks a vision-language model many questions, with or without images, each of them once."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from raigen.config import AskConfig, ModelAddress, parsed, shaped, text_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers, CutError, Gate, NoReplyError, Reply, Usage, key_of
from raigen.judging.vlm.questions import COLORS, Question, color_question, read_color
from raigen.runs.files import sha256
from raigen.runs.pixels import sized

log = logging.getLogger(__name__)

DEAD_AFTER = 5  # questions in a row without a reply: the server is gone, and the rest would wait in vain
REFUSED_AFTER = 20  # refusals in a row: perhaps the server refuses all questions by now


class Job(NamedTuple):
    """A question about images; `tag` comes back with its result."""

    images: tuple[Image.Image, ...]
    question: Question
    tag: Any


class Result(NamedTuple):
    """The result of a job: a reply, or the reason why there is none."""

    tag: Any
    reply: Reply | None
    reason: str


class Plan(NamedTuple):
    """What asking would take: all questions, calls for those that have no answer yet, estimated tokens and cost."""

    model: str
    questions: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float
    is_guess: bool = False

    def __str__(self) -> str:
        """
        >>> print(Plan("a at b", 1200, 1000, 900_000, 60_000, 0.0))
        a at b: 1,200 questions, 200 answered before, 1,000 calls; about 900,000 tokens in and 60,000 out
        """
        cost = f"; cost about {self.cost:.4g}" if self.cost else ""
        note = " (a guess until the first answers are there: some models count 60 times as much)"
        cost += note if self.is_guess else ""
        return (
            f"{self.model}: {self.questions:,} questions, {self.questions - self.calls:,} answered before, "
            f"{self.calls:,} calls; about {self.tokens_in:,} tokens in and {self.tokens_out:,} out{cost}"
        )


@runtime_checkable
class Model(Protocol):
    """A model that answers questions; threads may share it."""

    def ask(self, images: Sequence[Image.Image], question: Question, gate: Gate | None = None) -> Reply:
        """The reply. Every request passes the `gate`. Raises NoReplyError for a failure that may pass or that concerns
        one question, RaigenError for one that will not."""
        ...


class Script:
    """Answers from a file, for tests and rehearsals: JSON lines, or one JSON list.

    An entry fits when its `question` is part of the question and its `image`, if given, is the start of the first
    image's hash. The first one that fits gives the reply: its `answer`, a text or any other JSON. When none fits, there
    is no reply. Raises RaigenError when the file is missing or an entry has another form.
    """

    def __init__(self, address: ModelAddress):
        self._path, path = address.model, Path(address.model)
        if not path.is_file():
            raise RaigenError(f"scripted:{path}: expected a file of answers; there is none")
        where = f"scripted:{path}"
        text = text_of(path)
        with shaped(where, 'entries such as {"question": "a cat", "answer": {"answer": "yes"}}, one a line'):
            lines = (parsed(line, where) for line in text.split("\n") if line.strip())
            entries = parsed(text, where) if text.lstrip().startswith("[") else lines
            self._entries = [(entry["question"], entry.get("image", ""), entry["answer"]) for entry in entries]
            if not all(isinstance(part, str) for entry in self._entries for part in entry[:2]):
                raise TypeError("question and image are texts")
            if not text.strip():  # an empty list is a script that answers nothing
                raise ValueError("it has none")

    def ask(self, images: Sequence[Image.Image], question: Question, gate: Gate | None = None) -> Reply:
        """The answer of the first entry that fits. Raises NoReplyError when none fits."""
        if gate:
            gate.request()
        digest = hash_of(images[0]) if images else ""
        for part, image, answer in self._entries:
            if part in question.text and digest.startswith(image):
                return Reply(answer if isinstance(answer, str) else json.dumps(answer), None, "script", 0, 0)
        raise NoReplyError(f"{self._path} has no answer to it")


def open_model(address: ModelAddress, config: AskConfig, rung: str | None = None, device: str = "auto") -> Model:
    """The model at an address; `rung` is how a server was asked before, `device` where a model in this process runs.

    Raises RaigenError when a package, a key, a folder or a script is missing or broken."""
    if address.kind == "openai":
        from raigen.judging.vlm.server import Server

        return Server(address, config.timeout, rung)
    if address.kind == "scripted":
        return Script(address)
    from raigen.judging.vlm.local import Local  # loads torch and transformers

    return Local(address, device)


def ask_all(
    address: ModelAddress, jobs: Iterable[Job], answers: Answers, config: AskConfig, device: str = "auto"
) -> Iterator[Result]:
    """Asks every question that has no answer yet; yields results as they arrive, not in order. A model in this process
    runs on `device`.

    Up to `config.concurrency` questions are under way at once, in the order of `jobs`. Put all questions about one
    image in a row, so that a server can reuse what it computed for the image. The model is opened for the first
    question that needs it, and must then show that it sees (see `_Asker`). A question that got no reply in this start
    is not asked again. When the caller stops, by Ctrl-C or an error, no request is sent any more; answers under way are
    paid for, so they are waited for and kept. Raises RaigenError when a key is refused, the budget is spent, the model
    sees no images, or it stops replying; the answers so far are kept.
    """
    at_once = config.concurrency if address.kind == "openai" else 1
    asker = _Asker(address, answers, config, device)
    crew = _Crew(at_once, asker.ask)
    waiting = iter(jobs)
    try:
        while True:
            batch = list(islice(waiting, 2 * at_once - crew.n_pending))
            for job in batch:
                about = about_of(address, job)
                key = key_of(about)
                known = answers.get(key)
                if known is not None:
                    yield Result(job.tag, known, "")
                elif key in answers.failures:
                    yield Result(job.tag, None, answers.failures[key])
                else:
                    crew.submit(job, about)
            if crew.n_pending:
                yield crew.next()
            elif not batch:
                return
    except KeyboardInterrupt:
        log.warning("waiting for the answers under way, which are paid for; Ctrl-C again ends at once")
        raise
    finally:
        asker.gate.close()
        crew.finish()


class _Crew:
    """Threads that work off tasks. They end with the process, so that no answer under way holds up its end."""

    def __init__(self, n: int, work: Callable[..., Result]):
        self._work, self._n_to_start, self.n_pending = work, n, 0
        self._todo: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._done: SimpleQueue[Result | BaseException] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, *task: Any) -> None:
        """Calls `work` with the task, in a thread."""
        self.n_pending += 1
        self._todo.put(task)
        if len(self._threads) < min(self._n_to_start, self.n_pending):
            self._threads.append(threading.Thread(target=self._run, daemon=True))
            self._threads[-1].start()

    def next(self) -> Result:
        """The result of a task that is done, or what it raised."""
        found = self._done.get()
        self.n_pending -= 1
        if isinstance(found, BaseException):
            raise found
        return found

    def finish(self) -> None:
        """Waits for the tasks under way."""
        for _ in self._threads:
            self._todo.put(None)
        while self.n_pending:
            self._done.get()
            self.n_pending -= 1
        for thread in self._threads:  # they have nothing left to do
            thread.join()

    def _run(self) -> None:
        for task in iter(self._todo.get, None):
            try:
                self._done.put(self._work(*task))
            except BaseException as error:  # `next` raises it where it can be handled
                self._done.put(error)


class _Asker:
    """Asks one model from several threads, and stops when nothing comes back.

    Before its first question about an image of a size, a model is shown two plain images of that size and asked for
    their colors, once: one that sees none gives both the same answer. Scripts are not, because they do not look.
    """

    def __init__(self, address: ModelAddress, answers: Answers, config: AskConfig, device: str):
        self._address, self._answers, self._config, self._device = address, answers, config, device
        self.gate = Gate(answers.budget)
        self._model: Model | None = None
        self._sees: dict[tuple[int, int], RaigenError | None] = {}  # by the size of images: None, or why not
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self._failed = self._refused = 0  # questions in a row

    def ask(self, job: Job, about: dict[str, Any]) -> Result:
        with self._opening:
            if self._model is None:
                rungs = self._answers.usage(self._address).rungs
                self._model = open_model(self._address, self._config, rungs[-1] if rungs else None, self._device)
            self._prove(self._model, job)
        try:
            reply = self._asked(self._model, job, about)
        except NoReplyError as error:
            self._answers.failures[key_of(about)] = reason = f"no reply: {error}"
            self._note_failure(error, job)
            return Result(job.tag, None, reason)
        with self._counting:
            self._failed = self._refused = 0
        return Result(job.tag, reply, "")

    def _asked(self, model: Model, job: Job, about: dict[str, Any]) -> Reply:
        reply = model.ask(job.images, job.question, self.gate)
        if self._address.kind == "openai" and not reply.tokens_in:  # a server that does not count still charges
            self._answers.budget.spend_tokens(*_guess(job))
        self._answers.add(key_of(about), about, reply, sizes_of(job))
        return reply

    def _prove(self, model: Model, job: Job) -> None:
        """Raises RaigenError unless the model tells the colors of two plain images of the size of the job's."""
        if self._address.kind == "scripted" or not job.images:
            return
        size = job.images[0].size
        if size not in self._sees:
            said = {}
            for check in checks(size):
                about = about_of(self._address, check)
                known = self._answers.get(key_of(about))
                try:
                    right = known is not None and read_color(known.text) == check.tag
                    said[check.tag] = known.text if right and known else self._asked(model, check, about).text
                except NoReplyError as error:
                    raise RaigenError(
                        f"{self._address.name}: expected an answer to the first question, the color of a plain image; "
                        f"no reply: {error}. Give the same command again when the model replies"
                    ) from error
            is_blind = any(read_color(text) != color for color, text in said.items())
            answered = " and ".join(f"{text[:60]!r} for {color}" for color, text in said.items())
            self._sees[size] = RaigenError(
                f"{self._address.name}: expected a model that sees images; asked for the colors of two plain images, "
                f"it said {answered}. Choose a vision-language model, and start its server with the vision part "
                "(llama.cpp: --mmproj)"
            ) if is_blind else None  # fmt: skip
        if error := self._sees[size]:
            raise error

    def _note_failure(self, error: NoReplyError, job: Job) -> None:
        log.warning("%s: no reply: %s", self._address.name, error)
        with self._counting:
            self._refused, self._failed = (self._refused + 1, 0) if error.lives else (self._refused, self._failed + 1)
            refused, failed = self._refused, self._failed
        if failed >= DEAD_AFTER and self._address.kind != "scripted":
            self._stop(f"the last {failed} questions got no reply", error)
        if refused >= REFUSED_AFTER and refused % REFUSED_AFTER == 0:
            if isinstance(error, CutError):
                self._stop(f"the last {refused} questions got no whole answer", error)
            self._probe(refused, job)

    def _probe(self, refused: int, job: Job) -> None:
        """Asks once more what the model answered before. Raises RaigenError when it refuses that, too."""
        fresh = open_model(self._address, self._config, device=self._device)
        try:
            if job.images:
                fresh.ask(*checks(job.images[0].size)[0][:2], self.gate)
        except NoReplyError as error:
            self._stop(f"the last {refused} questions were refused, and so was one that was answered before", error)
        self._model = fresh

    def _stop(self, what: str, error: NoReplyError) -> None:
        raise RaigenError(
            f"{self._address.name}: {what} ({error}). The answers so far are kept; give the same command again when "
            "the model replies"
        ) from error


def checks(size: tuple[int, int]) -> list[Job]:
    """Two questions with known answers, about plain images of a size; the tag is the answer."""
    return [Job((Image.new("RGB", size, rgb),), color_question(), color) for color, rgb in COLORS.items()]


def sizes_of(job: Job) -> list[list[int]]:
    """Width and height of each image of a job as a model sees it."""
    return [list(_sent_size(image.size)) for image in job.images]


@lru_cache
def _sent_size(size: tuple[int, int]) -> tuple[int, int]:
    return sized(Image.new("L", size)).size


def about_of(address: ModelAddress, job: Job) -> dict[str, Any]:
    """Everything that decides an answer: the hashes of the images, the question, the model, its endpoint."""
    return {
        "model": address.model,
        "endpoint": address.endpoint,
        "images": [hash_of(image) for image in job.images],
        "question": job.question.text,
        "parameters": {"temperature": 0, "max_tokens": job.question.max_tokens},
    }


def hash_of(image: Image.Image) -> str:
    """The hash of an image's pixels; the file format does not matter."""
    return sha256(f"{image.width}x{image.height}:".encode() + image.convert("RGB").tobytes())


def plan(address: ModelAddress, jobs: Iterable[Job], answers: Answers) -> Plan:
    """What asking `jobs` would take, without asking, with the two questions that show that the model sees.

    Tokens are estimated by this model's earlier answers: see `_estimate`.
    """
    tokens_in = tokens_out = 0.0
    n_questions = n_calls = 0
    is_guess, seen = False, set()
    for job in jobs:
        n_questions += 1
        if answers.get(key_of(about_of(address, job))) is not None:
            continue
        asked = [job]
        if address.kind != "scripted" and job.images and job.images[0].size not in seen:
            seen.add(job.images[0].size)
            first = checks(job.images[0].size)
            asked += [check for check in first if answers.get(key_of(about_of(address, check))) is None]
        for each in asked:
            more_in, more_out, guessed = _estimate(address, each, answers)
            tokens_in, tokens_out, is_guess = tokens_in + more_in, tokens_out + more_out, is_guess or guessed
        n_questions, n_calls = n_questions + len(asked) - 1, n_calls + len(asked)
    cost = answers.budget.price(tokens_in, tokens_out)
    return Plan(address.name, n_questions, n_calls, round(tokens_in), round(tokens_out), cost, is_guess)


def _estimate(address: ModelAddress, job: Job, answers: Answers) -> tuple[float, float, bool]:
    """Tokens in and out for a question, and whether they are a guess.

    The mean of earlier answers with the same room about images of the same sizes, or of unknown ones (older runs). Else
    the images count as in the check questions of their size, and the texts a token for four letters.
    """
    sizes, room = sizes_of(job), job.question.max_tokens
    guess_in, guess_out = _guess(job)
    for size in (sizes, None):
        same = answers.usage(address, size, room)
        if same.tokens_in:
            return same.tokens_in / same.answers, same.tokens_out / same.answers, False
    check = color_question()
    first = answers.usage(address, sizes, check.max_tokens) if job.images else Usage()
    if first.tokens_in:
        return first.tokens_in / first.answers + (len(job.question.text) - len(check.text)) / 4, guess_out, False
    return guess_in, guess_out, True


def _guess(job: Job) -> tuple[float, float]:
    """Tokens by rule: one for each 28 x 28 pixels and for each four letters; an answer takes a fifth of its maximum."""
    pixels = sum(width * height for width, height in sizes_of(job))
    return pixels / 28**2 + len(job.question.text) / 4, job.question.max_tokens / 5
