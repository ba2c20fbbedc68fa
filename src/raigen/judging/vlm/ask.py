"""Asks a vision-language model many questions, with or without images, each of them once."""

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from raigen.config import AskConfig, ModelAddress, parsed, shaped, text_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers, NoReplyError, Reply, key_of
from raigen.judging.vlm.questions import Question
from raigen.runs.files import sha256
from raigen.runs.pixels import sized

log = logging.getLogger(__name__)

DEAD_AFTER = 5  # questions in a row without a reply: the server is gone, and the rest would wait in vain


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

    def __str__(self) -> str:
        """
        >>> print(Plan("a at b", 1200, 1000, 900_000, 60_000, 0.0))
        a at b: 1,200 questions, 200 answered before, 1,000 calls; about 900,000 tokens in and 60,000 out
        """
        cost = f"; cost about {self.cost:.4g}" if self.cost else ""
        return (
            f"{self.model}: {self.questions:,} questions, {self.questions - self.calls:,} answered before, "
            f"{self.calls:,} calls; about {self.tokens_in:,} tokens in and {self.tokens_out:,} out{cost}"
        )


@runtime_checkable
class Model(Protocol):
    """A model that answers questions; threads may share it."""

    def ask(self, images: Sequence[Image.Image], question: Question) -> Reply:
        """The reply. Raises NoReplyError for a failure that may pass, RaigenError for one that will not."""
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
        text = text_of(path)
        with shaped(
            f"scripted:{path}", 'entries such as {"question": "a cat", "answer": {"answer": "yes"}}, one a line'
        ):
            lines = (parsed(line, f"scripted:{path}") for line in text.split("\n") if line.strip())
            entries = parsed(text, f"scripted:{path}") if text.lstrip().startswith("[") else lines
            self._entries = [
                (f"{entry['question']}", f"{entry.get('image', '')}", entry["answer"]) for entry in entries
            ]

    def ask(self, images: Sequence[Image.Image], question: Question) -> Reply:
        """The answer of the first entry that fits. Raises NoReplyError when none fits."""
        digest = hash_of(images[0]) if images else ""
        for part, image, answer in self._entries:
            if part in question.text and digest.startswith(image):
                return Reply(answer if isinstance(answer, str) else json.dumps(answer), None, "script", 0, 0)
        raise NoReplyError(f"{self._path} has no answer to it")


def open_model(address: ModelAddress, config: AskConfig) -> Model:
    """The model at an address. Raises RaigenError when a package, a key, a folder or a script is missing or broken."""
    if address.kind == "openai":
        from raigen.judging.vlm.server import Server

        return Server(address, config.timeout)
    if address.kind == "scripted":
        return Script(address)
    from raigen.judging.vlm.local import Local  # loads torch and transformers

    return Local(address)


def ask_all(address: ModelAddress, jobs: Iterable[Job], answers: Answers, config: AskConfig) -> Iterator[Result]:
    """Asks every question that has no answer yet; yields results as they arrive, not in order.

    Up to `config.concurrency` questions are under way at once, in the order of `jobs`. Put all questions about one
    image in a row, so that a server can reuse what it computed for the image. The model is opened for the first
    question that needs it. A question that got no reply in this start is not asked again. Raises RaigenError when a key
    is refused, the budget is spent, or the model stops replying; the answers so far are kept.
    """
    at_once = config.concurrency if address.kind == "openai" else 1
    asker = _Asker(address, answers, config)
    waiting = iter(jobs)
    pool = ThreadPoolExecutor(at_once)
    pending: set[Future[Result]] = set()
    try:
        while True:
            batch = list(islice(waiting, 2 * at_once - len(pending)))
            for job in batch:
                about = about_of(address, job)
                key = key_of(about)
                known = answers.get(key)
                if known is not None:
                    yield Result(job.tag, known, "")
                elif key in answers.failures:
                    yield Result(job.tag, None, answers.failures[key])
                else:
                    pending.add(pool.submit(asker.ask, job, about))
            if pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from [future.result() for future in done]
            elif not batch:
                return
    finally:
        pool.shutdown(cancel_futures=True)  # questions under way are paid for: their answers are still written


class _Asker:
    """Asks one model from several threads, and stops when nothing comes back."""

    def __init__(self, address: ModelAddress, answers: Answers, config: AskConfig):
        self._address, self._answers, self._config = address, answers, config
        self._model: Model | None = None
        self._lock = threading.Lock()
        self._failed = 0  # questions in a row

    def ask(self, job: Job, about: dict[str, Any]) -> Result:
        with self._lock:
            model = self._model = self._model or open_model(self._address, self._config)
        self._answers.budget.spend_call()
        try:
            reply = model.ask(job.images, job.question)
        except NoReplyError as error:
            self._note_failure(error)
            self._answers.failures[key_of(about)] = reason = f"no reply: {error}"
            return Result(job.tag, None, reason)
        self._answers.add(key_of(about), about, reply)
        with self._lock:
            self._failed = 0
        return Result(job.tag, reply, "")

    def _note_failure(self, error: NoReplyError) -> None:
        log.warning("%s: no reply: %s", self._address.name, error)
        with self._lock:
            self._failed += 1
            if self._failed >= DEAD_AFTER and self._address.kind != "scripted":
                raise RaigenError(
                    f"{self._address.name}: the last {self._failed} questions came to nothing ({error}). The answers "
                    "so far are kept; give the same command again when the model replies"
                ) from error


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
    """What asking `jobs` would take, without asking.

    Tokens are estimated by the mean of this model's earlier answers. Without any, a question counts one token for each
    28 x 28 pixels and for each four letters, and an answer a fifth of its maximum.
    """
    usage = answers.usage(address.model)
    guess_in = guess_out = 0.0
    n_questions = n_calls = 0
    for job in jobs:
        n_questions += 1
        if answers.get(key_of(about_of(address, job))) is None:
            n_calls += 1
            sizes = [sized(image).size for image in job.images]
            guess_in += sum(width * height / 28**2 for width, height in sizes) + len(job.question.text) / 4
            guess_out += job.question.max_tokens / 5
    share = n_calls / max(usage.answers, 1)
    counted = (share * usage.tokens_in, share * usage.tokens_out)
    tokens = counted if usage.tokens_in else (guess_in, guess_out)
    return Plan(address.name, n_questions, n_calls, round(tokens[0]), round(tokens[1]), answers.budget.price(*tokens))
