"""Stand-ins for the stages of an audit, for tests of what walks through them."""

from collections.abc import Callable

from raigen.runs.files import write_text
from raigen.runs.steps import Outcome, Tick

PATHS: dict[str, Callable] = {
    "capture": lambda run: run.samples_path,
    "train": lambda run: run.metrics_path,
    "discover": lambda run: run.attributes_path,
    "look": lambda run: run.relatives_path,
    "annotate": lambda run: run.annotations_path,
    "evaluate": lambda run: run.presence_path,
    "report": lambda run: run.report_path,
}


class Stages:
    """Stand-ins for the stages: two ticks and one file each. The capture keeps a line per tick, and resumes."""

    def __init__(self):
        self.calls: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.fails_after = 0  # ticks
        self.texts: dict[str, str] = {}  # what the file of a stage holds in the end

    def __call__(self, name):
        def stage(run, config):
            self.calls.append(name)
            path = PATHS[name](run)
            lines = path.read_text().splitlines() if path.exists() and name == "capture" else []
            for done in range(len(lines), 3):
                if name in self.fails and done >= self.fails_after:
                    raise self.fails[name]
                lines.append(f"{name} {done}")
                write_text(path, "\n".join(lines))
                yield Tick(done + 1, 3, "working")
            if name in self.texts:
                write_text(path, self.texts[name])
            return Outcome([path], {"ticks": 3})

        return stage
