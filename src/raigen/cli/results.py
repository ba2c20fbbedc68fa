"""The commands that work on finished runs: amplify, studio, compare, review, share, view."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from raigen.auditing.audit import run_stage
from raigen.cli.flags import Command, flags
from raigen.cli.progress import progress_bars, told
from raigen.cli.tables import presence, print_amplified, print_attributes, print_comparison
from raigen.cli.terminal import say, say_json
from raigen.config import AmplifyConfig, CompareConfig, StudioConfig
from raigen.runs.run import Run
from raigen.runs.study import Study


@dataclass(frozen=True, kw_only=True)
class Amplify(Command):
    """Amplifies attributes and measures the effect; makes no image twice."""

    run: Positional[Path]
    """The run folder."""
    amplify: Annotated[AmplifyConfig, flags(AmplifyConfig)]

    def execute(self) -> None:
        config, run = AmplifyConfig(**vars(self.amplify)), Run(self.run)
        from raigen.amplification.amplify import amplify

        with progress_bars() as show:
            with told("amplify", show) as tell:
                found = amplify(run, progress=tell, **vars(config))
            run_stage(run, "report", run.config.report, on_tick=show)
        if config.causal:
            print_attributes(run)
        else:
            print_amplified(found)
        say(f"report: {run.report()}")


@dataclass(frozen=True, kw_only=True)
class Studio(Command):
    """Opens a page on which you steer by hand, beside unsteered images of the same seeds."""

    run: Positional[Path]
    """The run folder."""
    export: Path | None = None
    """A new folder: write a Hugging Face Space of the studio into it, and open nothing."""
    studio: Annotated[StudioConfig, flags(StudioConfig)]

    def execute(self) -> None:
        config, run = StudioConfig(**vars(self.studio)), Run(self.run)
        if self.export is not None:
            from raigen.studio.export import export

            export(run, self.export)
            say(f"{self.export}: a Space; its README.md says how to upload it. Try it with: python app.py")
            return
        from raigen.studio.launch import launch

        launch(run, config)


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compares the runs of a study, or single runs: what one model hides and another shows."""

    runs: Positional[tuple[Path, ...]]
    """A study folder, or two run folders or more."""
    study: Path | None = None
    """For single runs: a new folder, into which the comparison is written."""
    dry_run: bool = False
    """Only print what would be generated and judged, and about how long it would take."""
    json: bool = False
    """Print a JSON object in place of the table: comparison.json, or the plan with --dry-run."""
    compare: Annotated[CompareConfig, flags(CompareConfig)]

    def execute(self) -> None:
        config = CompareConfig(**vars(self.compare))
        from raigen.comparison.compare import compare, plan, study_of

        if self.dry_run:
            runs = Study(self.runs[0]).runs() if len(self.runs) == 1 else [Run(place) for place in self.runs]
            found = plan(runs, config)
            say_json(found) if self.json else say(found)
            return
        study = study_of(self.runs, self.study)
        with progress_bars() as show, told("compare", show) as tell:
            compare(study, progress=tell, **vars(config))
        say_json(study.comparison()) if self.json else print_comparison(study)


@dataclass(frozen=True, kw_only=True)
class Review(Command):
    """Reads what a person ticked on the review sheet, or noted on the report: checked rates, and names by people."""

    run: Positional[Path]
    """The run folder."""
    file: Positional[Path]
    """The file that review.html or report.html downloads."""

    def execute(self) -> None:
        from raigen.judging.notes import holds_notes, take_notes
        from raigen.judging.review import review

        run, are_notes = Run(self.run), holds_notes(self.file)
        with run.locked():
            taken = (take_notes if are_notes else review)(run, self.file)
        with progress_bars() as show:
            run_stage(run, "report", run.config.report, redo=True, on_tick=show)
        for a in taken:
            if are_notes:
                say(f"rank {a.rank}, {a.label or 'without a name'}: “{a.given_name}”, named by {a.named_by}")
            else:
                say(f"{a.label}: {presence(a.presence)} raw, {presence(a.corrected[-1])} checked")
        say(f"report: {run.report()}")


@dataclass(frozen=True, kw_only=True)
class Share(Command):
    """Writes the autoencoder of a run, with a card, as a folder that others can use by `raigen audit --sae`."""

    run: Positional[Path]
    """The run folder."""
    to: Path
    """The new folder."""
    push: str | None = None
    """Also upload the folder to this repository of the Hub, OWNER/NAME, which is made, private, unless it is there."""

    def execute(self) -> None:
        from raigen.report.autoencoder import share
        from raigen.sae.hub import push

        run = Run(self.run)
        share(run, self.to)
        say(f"autoencoder: {self.to}")
        if self.push is not None:
            say(f"uploaded: {push(self.to, self.push)}")
        else:
            say(f"next: raigen audit PROMPT --model {run.config.capture.model} --sae {self.to}")


@dataclass(frozen=True, kw_only=True)
class View(Command):
    """Shows a run, a folder of runs or a study in the browser of this machine."""

    place: Positional[Path]
    """A run folder, a folder of runs, or a study."""
    port: int = 8765
    """Port on 127.0.0.1; 0 takes any free one."""

    def execute(self) -> None:
        from raigen.cli.serve import server_of

        server = server_of(self.place, self.port)
        with server:
            say(f"http://{server.server_address[0]}:{server.server_address[1]}/  (Ctrl-C stops it)")
            with suppress(KeyboardInterrupt):
                server.serve_forever()
