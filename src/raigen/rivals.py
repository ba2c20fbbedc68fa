"""Asks a language model for the axes of an open-set audit."""

from collections.abc import Generator, Sequence

from raigen.address import KINDS, address_of
from raigen.answers import Answers
from raigen.axes import axis_of, read_axes
from raigen.comparisons import CLOSED, OPEN, Axis
from raigen.config import CompareConfig
from raigen.errors import RaigenError
from raigen.questions import axes_question, read_proposal
from raigen.records import Tick
from raigen.vlm import Job, ask_all


def rivals_of(
    prompts: Sequence[str], answers: Answers, config: CompareConfig
) -> Generator[Tick, None, list[Axis]]:  # fmt: skip
    """The axes of the closed and of the open set that `config` names. Raises RaigenError when a file is none of axes,
    the model cannot be asked, or its answer cannot be read."""
    axes = read_axes(config.closed_set, CLOSED) if config.closed_set else []
    if config.open_set is None:
        return axes
    if not is_model(config.open_set):
        return axes + read_axes(config.open_set, OPEN)
    return axes + (yield from proposed(prompts, answers, config))


def is_model(open_set: str) -> bool:
    """Whether an open set is proposed by a model and not read from a file."""
    return open_set.partition(":")[0] in KINDS


def proposed(prompts: Sequence[str], answers: Answers, config: CompareConfig) -> Generator[Tick, None, list[Axis]]:
    """The axes that a language model proposes for each prompt, as OpenBias asks for them (D'Inca et al. 2024): names
    and classes of what may be biased in pictures of the prompt. Each prompt is asked once; answers are kept."""
    address = address_of(config.open_set or "", "open_set")
    jobs = [Job((), axes_question(prompt), prompt) for prompt in prompts]
    found: dict[str, list[Axis]] = {}
    for done, (prompt, reply, reason) in enumerate(ask_all(address, jobs, answers, config), 1):
        classes = read_proposal(reply.text) if reply else None
        if not classes:
            raise RaigenError(f"open_set: {address.name} proposed no axes that can be read for “{prompt}” "
                              f"({reason or 'the answer has another form'}); name another model or a file")  # fmt: skip
        found[prompt] = [axis_of(OPEN, name, given, prompt) for name, given in classes.items()]
        yield Tick(done, len(jobs), f"axes for “{prompt}”")
    return [axis for prompt in prompts for axis in found[prompt]]
