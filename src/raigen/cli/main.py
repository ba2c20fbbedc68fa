"""The command line: turns flags into configurations, and prints what came of them."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raigen.auditing.audit import default_run_dir, run_stage, walk
from raigen.auditing.shared_sae import check_shareable
from raigen.auditing.sweep import default_study_dir, sweep
from raigen.cli.flags import parse, values_of
from raigen.cli.progress import progress_bars, quiet_libraries, study_progress_bars
from raigen.cli.tables import (
    presence,
    print_amplified,
    print_attributes,
    print_comparison,
    print_hookpoints,
    print_plan,
    print_result,
    print_search,
    print_study,
)
from raigen.config import (
    STAGE_CONFIGS,
    STAGES,
    AmplifyConfig,
    AuditConfig,
    CaptureConfig,
    CompareConfig,
    SearchConfig,
)
from raigen.config.presets import PRESETS, by_stage
from raigen.config.prompts import prompts_of
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.steps import Step, exhausted
from raigen.runs.study import Study


def main(argv: Sequence[str] | None = None) -> int:
    """Does what `argv` says; the exit status. 0: done. 2: a mistake a person can mend. 130: stopped by Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        return _main(args)
    except RaigenError as error:
        print(f"raigen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        ahead = "starts over" if args[0] == "hookpoints" else "goes on from here"  # which keeps nothing
        print(f"\nraigen: stopped; the same command {ahead}", file=sys.stderr)
        return 130


def _main(args: list[str]) -> int:
    command = parse(args, {})
    name = type(command).__name__
    if name == "version":
        print(f"raigen {version('raigen')}")
    elif name == "hookpoints":
        _search(command) if command.search else _list_hookpoints(command)
    elif name == "amplify":
        _amplify(command)
    elif name == "compare":
        _compare(command)
    elif name == "review":
        _review(Run(command.run), command.file)
    elif name == "view":
        _serve(command.place, command.port)
    elif name == "audit":
        _audit(command, args)
    elif name == "plan":
        quiet_libraries()
        config = _config_of(command, args, command.prompt)
        print_plan(import_module("raigen.auditing.plan").estimate(config), config)
    else:
        _run_one(name, command, args)
    return 0


def _audit(command: Any, args: list[str]) -> None:
    prompts = dict.fromkeys((*command.prompt, *(prompts_of(command.prompts) if command.prompts else ())))
    if not prompts:
        raise RaigenError('prompt: expected a text, such as: raigen audit "a photo of a doctor"; or --prompts')
    of_preset = PRESETS[command.preset]["model"] if command.preset else CaptureConfig.model
    models = list(dict.fromkeys(command.model or (of_preset,)))
    # The whole configuration is checked before a folder is made.
    configs = [_config_of(command, args, prompt, model=model) for prompt in prompts for model in models]
    if len(configs) > 1 or command.prompts or command.study or command.shared_sae:
        _sweep(command, configs[0], list(prompts), models)
        return
    run = Run.create(command.run_dir or default_run_dir(configs[0].capture.prompt))
    with progress_bars() as show:
        for step in walk(run, configs[0], command.redo):
            show(step)
    print_result(run)


def _sweep(command: Any, config: AuditConfig, prompts: list[str], models: list[str]) -> None:
    if command.run_dir is not None:
        raise RaigenError("run_dir: a study has a folder for each of its runs; name the study's own with --study DIR")
    if command.shared_sae:
        check_shareable(prompts, config)  # before a folder is made
    study = Study.create(command.study or default_study_dir(prompts, command.prompts))
    with study_progress_bars() as show:
        ways = (command.redo, command.workers, command.ray, command.shared_sae)
        for news in sweep(study, config, prompts, models, *ways):
            show(news)
    print_study(study)


def _config_of(command: Any, args: list[str], prompt: str, **more: Any) -> AuditConfig:
    if command.preset is not None:
        command = parse(args, by_stage(command.preset))  # once more: a flag left out has the preset's value
    options = {key: value for stage in STAGES for key, value in values_of(getattr(command, stage)).items()}
    return AuditConfig.of(prompt, **options, **more)


def _review(run: Run, path: Path) -> None:
    with run.locked():
        checked = import_module("raigen.judging.review").review(run, path)
    with progress_bars() as show:
        run_stage(run, "report", run.config.report, redo=True, on_tick=show)
    for attribute in checked:
        print(f"{attribute.label}: {presence(attribute.presence)} raw, {presence(attribute.corrected[-1])} checked")
    print(f"report: {run.report()}")


def _serve(place: Path, port: int) -> None:
    server = import_module("raigen.cli.serve").server_of(place, port)
    with server:
        print(f"http://{server.server_address[0]}:{server.server_address[1]}/  (Ctrl-C stops it)", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _list_hookpoints(command: Any) -> None:
    quiet_libraries()
    survey = import_module("raigen.diffusion.survey").list_hookpoints(
        command.model, SearchConfig(**values_of(command.options))
    )
    license = survey.license or "no license named"
    print(f"{survey.pipeline}, {survey.commit or 'a folder'}, {license}; {survey.n_steps} steps, "
          f"{survey.height} x {survey.width} pixels")  # fmt: skip
    print_hookpoints(survey.hookpoints, n_images=STAGE_CONFIGS["capture"]("x").n_images)


def _search(command: Any) -> None:
    config = SearchConfig(**values_of(command.options))
    with progress_bars() as show:
        found = exhausted(import_module("raigen.discovery.search").search(command.model, config), show)
    print_search(found, command.model, config)


def _amplify(command: Any) -> None:
    config, run = AmplifyConfig(**values_of(command.options)), Run(command.run)
    with progress_bars() as show:
        started = time.monotonic()
        show(Step("amplify", "begun"))
        amplify = import_module("raigen.amplification.amplify").amplify
        found = amplify(run, progress=lambda tick: show(Step("amplify", "running", tick)), **vars(config))
        show(Step("amplify", "finished", seconds=time.monotonic() - started))
        run_stage(run, "report", run.config.report, on_tick=show)
    if config.causal:
        print_attributes(run)
    else:
        print_amplified(found)
    print(f"report: {run.report()}")


def _compare(command: Any) -> None:
    options = vars(CompareConfig(**values_of(command.options)))
    room = import_module("raigen.comparison.compare")
    if command.dry_run:
        places = command.runs
        runs = Study(places[0]).runs() if len(places) == 1 else [Run(place) for place in places]
        print(room.plan(runs, CompareConfig(**options)))
        return
    study = room.study_of(command.runs, command.study)
    with progress_bars() as show:
        started = time.monotonic()
        show(Step("compare", "begun"))
        room.compare(study, progress=lambda tick: show(Step("compare", "running", tick)), **options)
        show(Step("compare", "finished", seconds=time.monotonic() - started))
    print_comparison(study)


def _run_one(stage: str, command: Any, args: list[str]) -> None:
    run_dir = _run_dir(command)
    recorded = {}
    if stage != "capture" or Run.is_at(run_dir):
        manifest = Run(run_dir).manifest
        if stage in manifest["stages"]:
            recorded = {stage: values_of(Run(run_dir).config_of(stage))}
            command = parse(args, recorded)  # once more: a flag left out keeps its recorded value
    values = values_of(getattr(command, stage))
    if stage == "capture":
        is_run = command.run_dir is None and _is_run(command.prompt)
        values["prompt"] = recorded.get(stage, {}).get("prompt", "") if is_run else command.prompt
    config = STAGE_CONFIGS[stage](**values)
    run = Run.create(run_dir) if stage == "capture" else Run(run_dir)
    if getattr(command, "dry_run", False):
        plans = import_module(f"raigen.judging.{stage}").plan(run, config)
        print("\n".join(map(str, plans)) or f"{stage}: no vision-language model is asked")
        return
    with progress_bars() as show:
        run_stage(run, stage, config, redo=command.redo is not None, on_tick=show)
    if stage == "report":
        print_result(run)


def _run_dir(command: Any) -> Path:
    """Where a single stage works: RUN, or for a capture --run-dir, PROMPT if it is a run, or the prompt's folder."""
    if type(command).__name__ != "capture":
        return command.run
    return command.run_dir or (Path(command.prompt) if _is_run(command.prompt) else default_run_dir(command.prompt))


def _is_run(text: str) -> bool:
    return Run.is_at(Path(text))


if __name__ == "__main__":
    sys.exit(main())
