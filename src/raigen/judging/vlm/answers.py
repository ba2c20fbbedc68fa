"""Keeps every answer that was paid for: a line of JSON each, written at once, so that no question is paid twice."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from raigen.errors import RaigenError
from raigen.runs.files import sha256

log = logging.getLogger(__name__)


class Reply(NamedTuple):
    """What a model answered, as it came: `text` is empty where it refused.

    `yes_share` in [0, 1] is P(yes) / (P(yes) + P(no)) where log-probabilities came; `rung` says how the form of the
    answer was asked for; the tokens are those that the server counted, 0 where it did not.
    """

    text: str
    yes_share: float | None
    rung: str
    tokens_in: int
    tokens_out: int


class NoReplyError(Exception):
    """A question came to nothing this time: nothing was answered, nothing is kept, the next start may ask again."""


class Usage(NamedTuple):
    """How many answers a model gave, the tokens that were counted for them, and the rungs on which they came."""

    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    rungs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What one start may spend: at most `max_calls` questions and `max_cost`, at prices for a million tokens."""

    max_calls: int | None = None
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """
        >>> Budget(price_in=2.0, price_out=8.0).cost(500_000, 250_000)
        3.0
        """
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Answers:
    """The answers in a JSONL file, by key. Threads may share it; processes may not (a run folder has one writer)."""

    def __init__(self, path: Path, budget: Budget | None = None):
        self.path, self.budget = path, budget or Budget()
        self.calls, self.cost = 0, 0.0  # of this start
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        self._usage: dict[str, Usage] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        self._is_torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                key, model, reply = entry["key"], entry["model"], Reply(**entry["reply"])
            except (json.JSONDecodeError, KeyError, TypeError):  # the line that was being written when all stopped
                log.warning("%s: a line that is not whole is skipped", path)
                continue
            self._replies[key] = reply
            self._count(model, reply)

    def get(self, key: str) -> Reply | None:
        """The answer of an earlier call, or None."""
        return self._replies.get(key)

    def spend(self) -> None:
        """Notes that a call is made. Raises RaigenError when the budget has none left."""
        limits = self.budget
        with self._lock:
            if limits.max_calls is not None and self.calls >= limits.max_calls:
                raise RaigenError(
                    f"max_calls: {self.calls:,} calls are made. All answers are kept; to go on, give the same command "
                    "with a new --max-calls, which counts from there"
                )
            if limits.max_cost is not None and self.cost >= limits.max_cost:
                raise RaigenError(
                    f"max_cost: {self.cost:.4g} of {limits.max_cost:g} are spent. All answers are kept; to go on, "
                    "give the same command with a new --max-cost, which counts from there"
                )
            self.calls += 1

    def add(self, key: str, about: Mapping[str, Any], reply: Reply) -> None:
        """Writes an answer, flushed before this returns; `about` is what was asked, of whom (`model`)."""
        line = json.dumps({"key": key, **about, "reply": reply._asdict(), "at": round(time.time(), 1)})
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(("\n" if self._is_torn else "") + line + "\n")
            self._is_torn = False
            self._replies[key] = reply
            self._count(about["model"], reply)
            self.cost += self.budget.cost(reply.tokens_in, reply.tokens_out)

    def usage(self, model: str) -> Usage:
        """What the answers of `model` took so far, of this start and of earlier ones."""
        return self._usage.get(model, Usage())

    def _count(self, model: str, reply: Reply) -> None:
        before = self.usage(model)
        self._usage[model] = Usage(
            before.answers + 1,
            before.tokens_in + reply.tokens_in,
            before.tokens_out + reply.tokens_out,
            tuple(dict.fromkeys((*before.rungs, reply.rung))),
        )


def key_of(about: Mapping[str, Any]) -> str:
    """The key of an answer: a hash of everything that decides it.

    >>> key_of({"model": "a", "images": ["1"]}) == key_of({"images": ["1"], "model": "a"})
    True
    """
    return sha256(json.dumps(about, sort_keys=True).encode())
