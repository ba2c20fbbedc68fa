"""Keeps every answer of a model, one line of JSON each, so that no question is paid for twice."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from raigen.config import AskConfig, ModelAddress
from raigen.errors import RaigenError
from raigen.judging.vlm.questions import objects, without_thought
from raigen.runs.files import not_through_links, sha256

log = logging.getLogger(__name__)

MOST_TOKENS = 10_000_000  # of one answer; a larger count is a server's mistake


class Reply(NamedTuple):
    """What a model answered: `text` is empty when it refused.

    `yes_share` in [0, 1] is P(yes) / (P(yes) + P(no)), None without log-probabilities. `rung` names the way in which
    JSON was requested. The tokens were counted by the server; 0 where it did not count.
    """

    text: str
    yes_share: float | None
    rung: str
    tokens_in: int
    tokens_out: int


class NoReplyError(Exception):
    """A question got no reply. Nothing is kept, so the next start asks it again."""

    lives = False
    """Whether the model replied at all: then the trouble is with this question, not with the model."""


class RefusedError(NoReplyError):
    """The server refused one question with `status`, a number of HTTP. `said` is fit to be shown; `words` are all that
    the server said, and may contain the key."""

    lives = True

    def __init__(self, status: int, said: str, words: str, code: str):
        super().__init__(said)
        self.status, self.words, self.code = status, words, code


class CutError(NoReplyError):
    """The answer was cut, or only a thought came. It was paid for, but asked with more room it would be another."""

    lives = True


class StoppedError(Exception):
    """The asking was stopped, so a request was not sent."""


class Usage(NamedTuple):
    """How many answers a model gave, how many tokens they took, and in which ways JSON was requested."""

    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    rungs: tuple[str, ...] = ()

    def plus(self, reply: Reply) -> "Usage":
        """With one more answer."""
        tokens = (self.tokens_in + reply.tokens_in, self.tokens_out + reply.tokens_out)
        return Usage(self.answers + 1, *tokens, tuple(dict.fromkeys((*self.rungs, reply.rung))))


class Budget:
    """What one start of a stage may spend, and what it spent so far. Threads may share it, and so may several
    `Answers`: all then count against one limit.

    `config` limits the calls and the cost, and holds the prices of a million tokens.
    """

    def __init__(self, config: AskConfig | None = None):
        self._config = config or AskConfig()
        self._calls, self._cost = 0, 0.0
        self._lock = threading.Lock()

    def price(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost.

        >>> Budget(AskConfig(price_in=2.0, price_out=8.0)).price(500_000, 250_000)
        3.0
        """
        return (tokens_in * self._config.price_in + tokens_out * self._config.price_out) / 1e6

    def spend_call(self) -> None:
        """Counts a call that is about to be made. Raises RaigenError when the budget has none left."""
        max_calls, max_cost = self._config.max_calls, self._config.max_cost
        with self._lock:
            if max_calls is not None and self._calls >= max_calls:
                raise RaigenError(
                    f"max_calls: {self._calls:,} calls are made. All answers are kept; to go on, give the same command "
                    "with a new --max-calls, which counts from there"
                )
            if max_cost is not None and self._cost >= max_cost:
                raise RaigenError(
                    f"max_cost: {self._cost:.4g} of {max_cost:g} are spent. All answers are kept; to go on, "
                    "give the same command with a new --max-cost, which counts from there"
                )
            self._calls += 1

    def spend_tokens(self, tokens_in: float, tokens_out: float) -> None:
        """Counts what a reply cost."""
        with self._lock:
            self._cost += self.price(tokens_in, tokens_out)


class Gate:
    """What every request to a model passes. It counts requests and cost, and lets nothing through once it is closed."""

    def __init__(self, budget: Budget | None = None):
        self.budget, self._closed = budget or Budget(), threading.Event()

    def request(self) -> None:
        """Comes before a request. Raises StoppedError when closed, RaigenError when the budget is spent."""
        self.wait(0)
        self.budget.spend_call()

    def wait(self, seconds: float) -> None:
        """Waits before a request is repeated. Raises StoppedError as soon as the gate is closed."""
        if self._closed.wait(seconds):
            raise StoppedError

    def close(self) -> None:
        """Nothing passes from here on."""
        self._closed.set()


class Answers:
    """The answers in a JSONL file, by key. Threads may share it. Processes should not (a run folder has one writer),
    but their lines stay whole.

    `failures` holds, by key, why a question got no reply during this start; it is not asked again before the next.
    Raises RaigenError when the file cannot be read.
    """

    def __init__(self, path: Path, budget: Budget | None = None):
        self.path, self.budget = path, budget or Budget()
        self.failures: dict[str, str] = {}
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        self._usage: dict[tuple[Any, ...], Usage] = {}
        try:
            text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        except OSError as error:
            raise RaigenError(f"{path}: expected the answers of models; the file cannot be read: {error}") from error
        for line in filter(str.strip, text.split("\n")):
            try:
                entry = json.loads(line)
                key, model, endpoint, reply = entry["key"], entry["model"], entry["endpoint"], _read(entry["reply"])
                room = entry.get("parameters", {}).get("max_tokens")
                self._count((model, endpoint), str(entry.get("sizes")), room, reply)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # of a killed process, or foreign
                log.warning("%s: skipped a broken line", path)
                continue
            if reply.tokens_out != room or any(objects(reply.text)):  # else it was cut; earlier versions kept it
                self._replies[key] = reply

    def get(self, key: str) -> Reply | None:
        """The answer of an earlier call, or None."""
        return self._replies.get(key)

    def add(self, key: str, about: Mapping[str, Any], reply: Reply, sizes: object = None) -> None:
        """Writes an answer to the file before it returns; `about` holds everything that decides the answer, and `sizes`
        are those of the images as they were sent.

        Raises RaigenError when the disk is full or the file cannot be written; no other answer is damaged.
        """
        entry = {"key": key, **about, "reply": reply._asdict(), "sizes": sizes, "at": round(time.time(), 1)}
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "ab+", buffering=0, opener=not_through_links) as file, _alone(file):
                    _append(file, json.dumps(entry).encode() + b"\n")
            except OSError as error:
                raise RaigenError(
                    f"{self.path}: an answer cannot be written: {error.strerror}. The answers so far are kept: free "
                    "some space, or allow writing, and give the same command again"
                ) from error
            self._replies[key] = reply
            room = about["parameters"]["max_tokens"]
            self._count((about["model"], about["endpoint"]), str(sizes), room, reply)

    def usage(self, address: ModelAddress, sizes: object = None, room: int | None = None) -> Usage:
        """What the answers of a model took, in this start and in earlier ones: all of them, or those about images of
        these sizes with room for so many tokens."""
        place = (address.model, address.endpoint)
        return self._usage.get(place if room is None else (*place, str(sizes), room), Usage())

    def _count(self, place: tuple[str, str], sizes: str, room: int, reply: Reply) -> None:
        for group in (place, (*place, sizes, room)):
            self._usage[group] = self._usage.get(group, Usage()).plus(reply)


def whole(text: str, is_cut: bool, room: int) -> str:
    """The text of an answer. Raises CutError when it was cut at `room` tokens, or ends within a thought: what stands in
    it is a draft."""
    if is_cut or (text.strip() and not without_thought(text).strip()):
        cut = f"cut at {room} tokens" if is_cut else "only a thought"
        raise CutError(f"the answer is {cut} (a reasoning model? Turn its thinking off, or choose another model)")
    return text


def count_of(value: object) -> int:
    """A count of tokens as a server gave it; 0 for what is none.

    >>> count_of(12), count_of("12"), count_of(-5), count_of(None)
    (12, 0, 0, 0)
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else 0


def _read(reply: Mapping[str, Any]) -> Reply:
    """The reply in a line of the file. Raises ValueError, KeyError or TypeError for another form."""
    text, share, rung = reply["text"], reply.get("yes_share"), reply["rung"]
    if not isinstance(text, str) or not isinstance(rung, str) or not (share is None or 0 <= share <= 1):
        raise ValueError("no reply")
    return Reply(text, share, rung, count_of(reply.get("tokens_in")), count_of(reply.get("tokens_out")))


@contextmanager
def _alone(file: IO[bytes]) -> Iterator[None]:
    """Keeps other processes from appending meanwhile, where the file system has locks."""
    with suppress(OSError, ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file
    yield


def _append(file: IO[bytes], line: bytes) -> None:
    """Appends a line whole or not at all, after whatever half line a killed process left."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        line = line if file.read(1) == b"\n" else b"\n" + line
    try:
        written = 0
        while written < len(line):  # a nearly full disk takes a part, and refuses the rest
            written += file.write(line[written:])
    except OSError:
        file.truncate(end)
        raise


def key_of(about: Mapping[str, Any]) -> str:
    """The key of an answer: a hash of everything that decides it.

    >>> key_of({"model": "a", "images": ["1"]}) == key_of({"images": ["1"], "model": "a"})
    True
    """
    return sha256(json.dumps(about, sort_keys=True).encode())
