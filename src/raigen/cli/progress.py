"""Shows the progress of stages: as bars in a terminal and in a notebook, elsewhere as lines on stderr."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from raigen.auditing.sweep import SweepStep
from raigen.cli.terminal import cell, warn
from raigen.report.formatting import duration
from raigen.runs.steps import Step, Tick

T = TypeVar("T")
SECONDS_PER_LINE = 15  # at least, between two lines about a stage when stderr is not a terminal


@contextmanager
def progress_bars() -> Iterator[Callable[[Step], None]]:
    """A function that shows each step: as bars with rate and time left in a terminal and in a notebook (which needs
    ipywidgets), else as plain lines.

        with raigen.progress_bars() as show:
            run = raigen.audit("a photo of a doctor", progress=show)
    """
    with _shown(bars, plain_lines) as show:
        yield show


@contextmanager
def told(stage: str, show: Callable[[Step], None]) -> Iterator[Callable[[Tick], None]]:
    """A function that takes the ticks of `stage` and shows them as steps; its begin and its end are shown, too."""
    started = time.monotonic()
    show(Step(stage, "begun"))
    yield lambda tick: show(Step(stage, "running", tick))
    show(Step(stage, "finished", seconds=time.monotonic() - started))


@contextmanager
def study_progress_bars() -> Iterator[Callable[[SweepStep], None]]:
    """A function that shows each step of a sweep: a bar for all runs and one for each active run, or plain lines."""
    with _shown(sweep_bars, sweep_lines) as show:
        yield show


@contextmanager
def _shown(
    in_terminal: Callable[[Progress], Callable[[T], None]], elsewhere: Callable[[], Callable[[T], None]]
) -> Iterator[Callable[[T], None]]:
    console = Console(stderr=True)
    if not draws(console):
        yield elsewhere()
        return
    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield in_terminal(progress)


def draws(console: Console) -> bool:
    """Whether bars can be drawn: in a terminal, and in a notebook with ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


class RateColumn(ProgressColumn):
    """How fast a task goes on."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed), style="dim")


def rate(speed: float | None) -> str:
    """A speed in units of work per second.

    >>> rate(12.345), rate(0.4), rate(None)
    ('12.3/s', '2.5 s each', '')
    """
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def bars(progress: Progress) -> Callable[[Step], None]:
    """A bar for each stage."""
    tasks: dict[str, TaskID] = {}

    def show(step: Step) -> None:
        if step.stage not in tasks:
            tasks[step.stage] = progress.add_task(step.stage, total=None, note="")
        task = tasks[step.stage]
        if step.state == "skipped":
            progress.update(task, total=1, completed=1, note="done before")
        elif step.tick is not None:
            if progress.tasks[task].total is None and step.stage == "capture" and step.tick.note:
                progress.console.print(f"{step.stage}: {cell(step.tick.note)}", highlight=False)
            progress.update(task, total=step.tick.total, completed=step.tick.done, note=cell(step.tick.note))
        elif step.state == "finished":
            total = progress.tasks[task].total or 1
            progress.update(task, total=total, completed=total, note=f"done in {duration(step.seconds)}")

    return show


def sweep_bars(progress: Progress) -> Callable[[SweepStep], None]:
    """A bar for all runs, and below it one for the current stage of each unfinished run."""
    whole: list[TaskID] = []
    tasks: dict[int, TaskID] = {}

    def show(news: SweepStep) -> None:
        if not whole:
            whole.append(progress.add_task("runs", total=news.total, note=""))
        if news.step is None:
            if news.number in tasks:
                progress.remove_task(tasks.pop(news.number))
            progress.advance(whole[0])
            return
        step = news.step
        if news.number not in tasks:
            tasks[news.number] = progress.add_task(step.stage, total=None, note=cell(_title(news)))
        tick = step.tick or Tick(0, 1)
        progress.update(tasks[news.number], description=step.stage, total=tick.total, completed=tick.done)

    return show


def sweep_lines() -> Callable[[SweepStep], None]:
    """The plain lines of each run, after its number and its name; a single line for a run that was done before."""
    shows: dict[int, Callable[[Step], None]] = {}
    idle: set[int] = set()

    def show(news: SweepStep) -> None:
        head = f"{news.number} of {news.total}, {_title(news)}: "
        if news.number not in shows:
            shows[news.number] = plain_lines(head)
            idle.add(news.number)
        if news.step is None:
            ending = "failed" if news.error is not None else "done before" if news.number in idle else "done"
            warn(head + ending)
        elif news.step.state != "skipped":
            idle.discard(news.number)
            shows[news.number](news.step)

    return show


def _title(news: SweepStep) -> str:
    return f"“{news.entry.prompt}” with {news.entry.model}"


def plain_lines(head: str = "") -> Callable[[Step], None]:
    """A line about the running stage every `SECONDS_PER_LINE`, after `head`."""
    start: tuple[float, Tick] | None = None  # time and first tick of the stage, or of its part with the same total
    last_line = time.monotonic()

    def show(step: Step) -> None:
        nonlocal last_line, start
        now = time.monotonic()
        if step.state == "begun":
            start, last_line = None, now
        elif step.state != "running":
            text = "done before" if step.state == "skipped" else f"done in {duration(step.seconds)}"
            warn(f"{head}{step.stage}: {text}")
        elif step.tick is not None:
            if start is None and step.stage == "capture" and step.tick.note:  # how the images are made
                warn(f"{head}{step.stage}: {step.tick.note}")
            if start is None or start[1].total != step.tick.total:
                start = now, step.tick
            if now - last_line >= SECONDS_PER_LINE:
                last_line = now
                standing = _standing(step.tick, now - start[0], start[1].done)
                warn(f"{head}{step.stage}: {standing}")

    return show


def _standing(tick: Tick, seconds: float, resumed_at: int) -> str:
    """
    >>> _standing(Tick(300, 1000, "doctors"), seconds=10.0, resumed_at=100)
    '300 of 1000, 35.0 s left · doctors'
    """
    done, total, note = tick
    left = f", {duration(seconds / (done - resumed_at) * (total - done))} left" if done > resumed_at else ""
    return f"{done} of {total}{left}{' · ' + note if note else ''}"


def quiet_libraries() -> None:
    """Silences the messages of the model libraries. Has no effect once they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
