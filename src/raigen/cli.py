"""The command line: turns flags into configurations, and prints what came of them."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields, make_dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import (
    DisallowNone,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    Positional,
    PositionalMetavarFromFieldName,
    UseAppendAction,
)

from raigen.audit import Step, default_run_dir, run_stage, walk
from raigen.config import STAGE_CONFIGS, STAGES, AmplifyConfig, AskConfig, AuditConfig, CaptureConfig, HookpointsConfig
from raigen.errors import RaigenError
from raigen.presets import PRESETS, by_stage
from raigen.progress import quiet_libraries, sweep_view, view
from raigen.prompts import prompts_of
from raigen.run import Run
from raigen.study import Study
from raigen.sweep import default_study_dir, sweep
from raigen.tables import (
    presence,
    print_amplified,
    print_attributes,
    print_hookpoints,
    print_plan,
    print_result,
    print_study,
)

DESCRIPTION = "Finds the attributes that a text-to-image model knows but hardly ever shows."
AUDIT_HELP = "Audits a prompt, or many with many models; the same command again goes on where it stopped."
STAGE_HELP = {
    "capture": "Generates pictures and keeps the activations of one layer of the denoiser.",
    "train": "Trains the sparse autoencoder on what the layer put out.",
    "discover": "Scores the neurons and lists the rare ones.",
    "annotate": "Names the listed neurons.",
    "evaluate": "Measures on fresh pictures how often each named attribute shows.",
    "report": "Writes the report, one HTML file.",
}
AMPLIFY_HELP = "Brings attributes out, and measures what that does; makes no picture twice."
PLAN_HELP = "Says what an audit would take and the rarest rate it could show, from a few pictures; writes nothing."
HOOKPOINTS_HELP = "Lists the layers of a model that can be looked into, with what all steps would take on disk."
MODEL_HELP = "`portraits` (bundled), a folder with a diffusers pipeline, or an id on the Hub."
MODELS_HELP = f"{MODEL_HELP} Several, one flag each, make a study. (default: portraits)"
PROMPTS_HELP = "More prompts: `professions`, `scenes`, or a text file with one a line. They make a study."
STUDY_HELP = "The folder of the study: a run for every prompt and model. (default: studies/PROMPTS)"
WORKERS_HELP = "Runs of a study that go on at once, each in a process of its own."
PRESET_HELP = "Start from published settings, model and all; other flags still count."
REVIEW_HELP = "Brings back what a person ticked on the review sheet; the rates then stand checked beside raw."
FILE_HELP = "The file that review.html downloads."
VIEW_HELP = "Shows a run, or a folder of runs, in the browser of this machine."
PLACE_HELP = "A run folder, or a folder of them."
PORT_HELP = "Port on 127.0.0.1; 0 takes any that is free."
VERSION_HELP = "Prints the version."
RUN_HELP = "The run folder. What it was given before stands for the flags left out."
RUN_DIR_HELP = "The run folder. (default: runs/PROMPT)"
REDO_HELP = "Do this stage anew, with all that follow it."
PROMPT_HELP = "What to ask the model for: a text that is not empty."
AUDITED_HELP = "What to ask the model for, a text that is not empty; several make a study."
PROMPT_OR_RUN_HELP = "What to ask the model for; or a run folder, to go on with."
DRY_RUN_HELP = "Only say what asking the models would take: calls, tokens, cost."
NUMBERS: dict[Any, type] = {tuple[int, ...]: int, tuple[float, ...]: float}  # fields that are lists of them


def main(argv: Sequence[str] | None = None) -> int:
    """Does what `argv` says; the exit status. 0: done. 2: a mistake a person can mend. 130: stopped by Ctrl-C."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv) or ["--help"])
    except RaigenError as error:
        print(f"raigen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nraigen: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _main(args: list[str]) -> int:
    command = _parse(args, {})
    name = type(command).__name__
    if name == "version":
        print(f"raigen {version('raigen')}")
    elif name == "hookpoints":
        _list_hookpoints(command)
    elif name == "amplify":
        _amplify(command)
    elif name == "review":
        _review(Run(command.run), command.file)
    elif name == "view":
        _serve(command.place, command.port)
    elif name == "audit":
        _audit(command, args)
    elif name == "plan":
        quiet_libraries()
        config = _config_of(command, args, command.prompt)
        print_plan(import_module("raigen.plan").plan(config), config)
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
    if len(configs) > 1 or command.prompts or command.study:
        _sweep(command, configs[0], list(prompts), models)
        return
    run = Run.create(command.run_dir or default_run_dir(configs[0].capture.prompt))
    with view() as show:
        for step in walk(run, configs[0], command.redo):
            show(step)
    print_result(run)


def _sweep(command: Any, config: AuditConfig, prompts: list[str], models: list[str]) -> None:
    if command.run_dir is not None:
        raise RaigenError("run_dir: a study has a folder for each of its runs; name the study's own with --study DIR")
    study = Study.create(command.study or default_study_dir(prompts, command.prompts))
    with sweep_view() as show:
        for news in sweep(study, config, prompts, models, command.redo, command.workers):
            show(news)
    print_study(study)


def _config_of(command: Any, args: list[str], prompt: str, **more: Any) -> AuditConfig:
    if command.preset is not None:
        command = _parse(args, by_stage(command.preset))  # once more: a flag left out has the preset's value
    options = {key: value for stage in STAGES for key, value in _values(getattr(command, stage)).items()}
    return AuditConfig.of(prompt, **options, **more)


def _review(run: Run, path: Path) -> None:
    with run.locked():
        checked = import_module("raigen.review").review(run, path)
    with view() as show:
        run_stage(run, "report", run.config_of("report"), redo=True, on_tick=show)
    for attribute in checked:
        print(f"{attribute.label}: {presence(attribute.presence)} raw, {presence(attribute.corrected[-1])} checked")
    print(f"report: {run.report()}")


def _serve(place: Path, port: int) -> None:
    server = import_module("raigen.view").server_of(place, port)
    with server:
        print(f"http://{server.server_address[0]}:{server.server_address[1]}/  (Ctrl-C stops it)", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _list_hookpoints(command: Any) -> None:
    quiet_libraries()
    survey = import_module("raigen.survey").survey(command.model, HookpointsConfig(**_values(command.options)))
    licence = survey.licence or "no licence named"
    print(f"{survey.pipeline}, {survey.commit or 'a folder'}, {licence}; {survey.n_steps} steps, "
          f"{survey.height} x {survey.width} pixels")  # fmt: skip
    print_hookpoints(survey.hookpoints, n_images=STAGE_CONFIGS["capture"]("x").n_images)


def _amplify(command: Any) -> None:
    config, run = AmplifyConfig(**_values(command.options)), Run(command.run)
    with view() as show:
        started = time.monotonic()
        show(Step("amplify", "begun"))
        amplify = import_module("raigen.amplify").amplify
        found = amplify(run, progress=lambda tick: show(Step("amplify", "running", tick)), **vars(config))
        show(Step("amplify", "finished", seconds=time.monotonic() - started))
    if config.causal:
        print_attributes(run)
    else:
        print_amplified(found)


def _run_one(stage: str, command: Any, args: list[str]) -> None:
    run_dir = _run_dir(command)
    recorded = {}
    if stage != "capture" or (run_dir / "run.json").is_file():
        manifest = Run(run_dir).manifest
        if stage in manifest["stages"]:
            recorded = {stage: _values(Run(run_dir).config_of(stage))}
            command = _parse(args, recorded)  # once more: a flag left out keeps its recorded value
    values = _values(getattr(command, stage))
    if stage == "capture":
        is_run = command.run_dir is None and _is_run(command.prompt)
        values["prompt"] = recorded.get(stage, {}).get("prompt", "") if is_run else command.prompt
    config = STAGE_CONFIGS[stage](**values)
    run = Run.create(run_dir) if stage == "capture" else Run(run_dir)
    if getattr(command, "dry_run", False):
        plans = import_module(f"raigen.{stage}").plan(run, config)
        print("\n".join(map(str, plans)) or f"{stage}: no vision-language model is asked")
        return
    with view() as show:
        run_stage(run, stage, config, redo=command.redo is not None, on_tick=show)
    if stage == "report":
        print_result(run)


def _run_dir(command: Any) -> Path:
    """Where a single stage works: RUN, or for a capture --run-dir, PROMPT if it is a run, or the prompt's folder."""
    if type(command).__name__ != "capture":
        return command.run
    return command.run_dir or (Path(command.prompt) if _is_run(command.prompt) else default_run_dir(command.prompt))


def _is_run(text: str) -> bool:
    return (Path(text) / "run.json").is_file()


# Flags. A command is a dataclass made from the configurations, so a field added there is a flag here.
def _parse(args: Sequence[str], recorded: Mapping[str, Mapping[str, Any]]) -> Any:
    """The command in `args`; its type bears the command's name. `recorded` holds other defaults, by stage."""
    flags = {stage: _flags(stage, recorded.get(stage, {})) for stage in STAGES}
    redo = (Annotated[Literal[STAGES] | None, tyro.conf.arg(help=REDO_HELP)], None)
    run_dir = (Annotated[Path | None, tyro.conf.arg(help=RUN_DIR_HELP, help_behavior_hint="")], None)
    prompt = (Annotated[Positional[str], tyro.conf.arg(help=PROMPT_HELP)],)
    audited = (Annotated[Positional[tuple[str, ...]], tyro.conf.arg(help=AUDITED_HELP, help_behavior_hint="")], ())
    run = (Annotated[Positional[Path], tyro.conf.arg(help=RUN_HELP)],)
    preset = (Annotated[Literal[tuple(PRESETS)] | None, tyro.conf.arg(help=PRESET_HELP)], None)
    many = {
        "model": (Annotated[UseAppendAction[tuple[str, ...]],
                            tyro.conf.arg(help=MODELS_HELP, help_behavior_hint="")], ()),
        "prompts": (Annotated[str | None, tyro.conf.arg(help=PROMPTS_HELP)], None),
        "study": (Annotated[Path | None, tyro.conf.arg(help=STUDY_HELP, help_behavior_hint="")], None),
        "workers": (Annotated[int, tyro.conf.arg(help=WORKERS_HELP)], 1),
    }  # fmt: skip
    places = {"prompt": audited, **many, "run_dir": run_dir, "redo": redo, "preset": preset}
    shared = tuple(f.name for f in fields(AskConfig))  # one flag of the audit for both stages that ask
    audit_flags = flags | {"evaluate": _flags("evaluate", {}, hidden=shared)}
    without_model = _flags("capture", recorded.get("capture", {}), hidden=("model",))
    commands = [_command("audit", AUDIT_HELP, places | audit_flags | {"capture": without_model})]
    commands.append(_command("plan", PLAN_HELP, {"prompt": prompt, "preset": preset, **audit_flags}))
    for stage in STAGES:
        place: dict[str, tuple[Any, ...]] = {"run": run}
        if stage == "capture":
            target = (Annotated[Positional[str], tyro.conf.arg(help=PROMPT_OR_RUN_HELP)],)
            place = {"prompt": target, "run_dir": run_dir}
        if stage in ("annotate", "evaluate"):
            place["dry_run"] = (Annotated[bool, tyro.conf.arg(help=DRY_RUN_HELP)], False)
        redo_stage = (Annotated[Literal[stage] | None, tyro.conf.arg(help=REDO_HELP)], None)
        commands.append(_command(stage, STAGE_HELP[stage], {**place, "redo": redo_stage, stage: flags[stage]}))
    model = (Annotated[Positional[str], tyro.conf.arg(help=MODEL_HELP)],)
    options = _unchecked(HookpointsConfig, (), {})
    amplify = _unchecked(AmplifyConfig, (), {})
    commands.append(_command("amplify", AMPLIFY_HELP, {"run": run, "options": amplify}))
    commands.append(_command("hookpoints", HOOKPOINTS_HELP, {"model": model, "options": options}))
    file = (Annotated[Positional[Path], tyro.conf.arg(help=FILE_HELP)],)
    commands.append(_command("review", REVIEW_HELP, {"run": run, "file": file}))
    place_of_runs = (Annotated[Positional[Path], tyro.conf.arg(help=PLACE_HELP)],)
    port = (Annotated[int, tyro.conf.arg(help=PORT_HELP)], 8765)
    commands.append(_command("view", VIEW_HELP, {"place": place_of_runs, "port": port}))
    commands.append(_command("version", VERSION_HELP, {}))
    markers = (OmitArgPrefixes, OmitSubcommandPrefixes, DisallowNone, PositionalMetavarFromFieldName)
    union: Any = Union[tuple(commands)]  # noqa: UP007
    return tyro.cli(union, prog="raigen", description=DESCRIPTION, args=args, config=markers)


def _command(name: str, help: str, parts: Mapping[str, tuple[Any, ...]]) -> Any:
    made = make_dataclass(
        name,
        [(key, part[0]) if len(part) == 1 else (key, part[0], field(default=part[1])) for key, part in parts.items()],
        kw_only=True,
        frozen=True,
        namespace={"__doc__": help},
    )
    return Annotated[made, tyro.conf.subcommand(name)]


def _flags(stage: str, recorded: Mapping[str, Any], hidden: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """A stage's configuration as flags, with their defaults; the prompt and the `hidden` fields are none."""
    return _unchecked(STAGE_CONFIGS[stage], ("prompt", *hidden) if stage == "capture" else hidden, recorded)


def _unchecked(base: type, hidden: tuple[str, ...], values: Mapping[str, Any]) -> tuple[Any, Any]:
    """A configuration that is not checked, so that a bad value is told in raigen's words and not in the parser's."""
    defaults = {f.name: f.default for f in fields(base)} | {"prompt": ""}
    suppressed = [(name, tyro.conf.Suppress[Any], field(default=defaults[name])) for name in hidden]
    namespace = {"__post_init__": lambda self: None, "__doc__": base.__doc__, "hidden": frozenset(hidden)}
    suppressed += [(f.name, _numbers(f.type), field(default=f.default)) for f in fields(base) if f.type in NUMBERS]
    made = make_dataclass(f"{base.__name__}_flags", suppressed, bases=(base,), frozen=True, namespace=namespace)
    return made, made(**values)


def _numbers(kind: Any) -> Any:
    """A flag of numbers that takes them with commas between them, or spaces."""
    number = NUMBERS[kind]
    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{number.__name__.upper()},...]",
        instance_from_str=lambda parts: tuple(number(text) for part in parts for text in part.split(",") if text),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [f"{each:g}" for each in value],
    )
    return Annotated[kind, spec]


def _values(config: Any) -> dict[str, Any]:
    hidden = getattr(type(config), "hidden", frozenset())
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in hidden}


if __name__ == "__main__":
    sys.exit(main())
