"""Keeps every answer of a model, one line of JSON each, so that no question is paid for twice."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raigen.config import AskConfig
from raigen.errors import RaigenError
from raigen.runs.files import sha256

log = logging.getLogger(__name__)


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


class Usage(NamedTuple):
    """How many answers a model gave, how many tokens they took, and in which ways JSON was requested."""

    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    rungs: tuple[str, ...] = ()


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

    def spend_tokens(self, tokens_in: int, tokens_out: int) -> None:
        """Counts what a reply cost."""
        with self._lock:
            self._cost += self.price(tokens_in, tokens_out)


class Answers:
    """The answers in a JSONL file, by key. Threads may share it; processes may not (a run folder has one writer).

    `failures` holds, by key, why a question got no reply during this start; it is not asked again before the next.
    """

    def __init__(self, path: Path, budget: Budget | None = None):
        self.path, self.budget = path, budget or Budget()
        self.failures: dict[str, str] = {}
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        self._usage: dict[str, Usage] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        self._is_torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                key, model, reply = entry["key"], entry["model"], Reply(**entry["reply"])
            except (json.JSONDecodeError, KeyError, TypeError):  # what a killed process was writing
                log.warning("%s: skipped a broken line", path)
                continue
            self._replies[key] = reply
            self._count(model, reply)

    def get(self, key: str) -> Reply | None:
        """The answer of an earlier call, or None."""
        return self._replies.get(key)

    def add(self, key: str, about: Mapping[str, Any], reply: Reply) -> None:
        """Writes an answer to the file before it returns; `about` holds everything that decides the answer."""
        line = json.dumps({"key": key, **about, "reply": reply._asdict(), "at": round(time.time(), 1)})
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(("\n" if self._is_torn else "") + line + "\n")
            self._is_torn = False
            self._replies[key] = reply
            self._count(about["model"], reply)
        self.budget.spend_tokens(reply.tokens_in, reply.tokens_out)

    def usage(self, model: str) -> Usage:
        """What the answers of `model` took, in this start and in earlier ones."""
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
