"""What a stage tells while it works: ticks, steps, and in the end its outcome."""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")


class Tick(NamedTuple):
    """Progress of a stage: `done` of `total` units, and a few words about the latest."""

    done: int
    total: int
    note: str = ""


Tell = Callable[[Tick], object]  # what a function below the stage reports its progress to


class Outcome(NamedTuple):
    """What a finished stage made: its files, and a few facts for the run card (JSON values)."""

    outputs: list[Path]
    facts: dict[str, Any]


def mapped(items: Generator[T, None, R], function: Callable[[T], U]) -> Generator[U, None, R]:
    """`function` of everything that a generator yields; returns what the generator returns."""
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            return end.value
        yield function(item)


def exhausted(items: Generator[T, None, R], tell: Callable[[T], object] | None) -> R:
    """What a generator returns at its end; `tell`, if there is one, is told everything that it yields before."""
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            return end.value
        if tell is not None:
            tell(item)


class Step(NamedTuple):
    """Where the walk stands: a stage was skipped, begins, goes on (`tick`), or has finished after `seconds`."""

    stage: str
    state: Literal["skipped", "begun", "running", "finished"]
    tick: Tick | None = None
    seconds: float = 0.0


def timed(stage: str, ticks: Generator[Tick, None, R]) -> Generator[Step, None, R]:
    """The ticks of a stage as steps: it begins, goes on and finishes. Returns what `ticks` returns."""
    started = time.monotonic()
    yield Step(stage, "begun")
    result = yield from mapped(ticks, lambda tick: Step(stage, "running", tick))
    yield Step(stage, "finished", seconds=time.monotonic() - started)
    return result
