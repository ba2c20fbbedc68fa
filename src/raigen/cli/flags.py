"""Makes the flags of the command line out of the configurations, and reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import field, fields, make_dataclass
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

from raigen.config import STAGE_CONFIGS, STAGES, AmplifyConfig, AskConfig, CompareConfig, SearchConfig
from raigen.config.presets import PRESETS

DESCRIPTION = "Finds the attributes that a text-to-image model knows but hardly ever shows."
AUDIT_HELP = "Audits a prompt, or many with many models; the same command again goes on where it stopped."
STAGE_HELP = {
    "capture": "Generates images and keeps the activations of one layer of the denoiser.",
    "train": "Trains the sparse autoencoder on what the layer put out.",
    "discover": "Scores the neurons and lists the rare ones.",
    "annotate": "Names the listed neurons.",
    "evaluate": "Measures on fresh images how often each named attribute shows.",
    "report": "Writes the report, one HTML file.",
}
AMPLIFY_HELP = "Brings attributes out, and measures what that does; makes no image twice."
COMPARE_HELP = "Compares the runs of a study, or single runs: what one model hides that another shows."
COMPARED_HELP = "A study folder, or two run folders or more."
COMPARISON_HELP = "For single runs: the new folder in which the comparison is written."
PLAN_HELP = "Says what an audit would take and the rarest rate it could show, from a few images; writes nothing."
HOOKPOINTS_HELP = "Lists the layers of a model that can be looked into, or tries which is the best."
SEARCH_HELP = "Make images, train two small autoencoders on each layer, and rank the layers by what these find."
MODEL_HELP = "`portraits` or `portraits-transformer` (bundled), or a folder or Hub id of a diffusers pipeline."
MODELS_HELP = f"{MODEL_HELP} Several, one flag each, make a study. (default: portraits)"
PROMPTS_HELP = "More prompts: `professions`, `scenes`, or a text file with one a line. They make a study."
STUDY_HELP = "The folder of the study: a run for every prompt and model. (default: studies/PROMPTS)"
WORKERS_HELP = "Runs of a study that go on at once, each in a process of its own."
RAY_HELP = "Spreads the runs of a study over the Ray cluster at this address, such as `auto` or HOST:6379."
SHARED_SAE_HELP = "One autoencoder for all prompts of a model, trained on the images of all, in place of one each."
PRESET_HELP = "Start from published settings, model and all; other flags still count."
REVIEW_HELP = "Brings back what a person ticked on the review sheet; the rates then stand checked beside raw."
FILE_HELP = "The file that review.html downloads."
VIEW_HELP = "Shows a run, a folder of runs or a study in the browser of this machine."
PLACE_HELP = "A run folder, a folder of them, or a study."
PORT_HELP = "Port on 127.0.0.1; 0 takes any that is free."
VERSION_HELP = "Prints the version."
RUN_HELP = "The run folder. What it was given before stands for the flags left out."
RUN_DIR_HELP = "The run folder. (default: runs/PROMPT)"
REDO_HELP = "Do this stage anew, with all that follow it."
PROMPT_HELP = "What to ask the model for: a text that is not empty."
AUDITED_HELP = "What to ask the model for, a text that is not empty; several make a study."
PROMPT_OR_RUN_HELP = "What to ask the model for; or a run folder, to go on with."
DRY_RUN_HELP = "Only say what asking the models would take: calls, tokens, cost."
DRY_RUN_COMPARE_HELP = "Only say what would be made and judged, and in about what time."
NUMBERS: dict[Any, type] = {tuple[int, ...]: int, tuple[float, ...]: float}  # fields that are lists of them


# A command is a dataclass made from the configurations, so a field added there is a flag here.
def parse(args: Sequence[str], recorded: Mapping[str, Mapping[str, Any]]) -> Any:
    """The command in `args`; its type bears the command's name. `recorded` holds other defaults, by stage."""
    flags = {stage: _flags(stage, recorded.get(stage, {})) for stage in STAGES}
    redo = (Annotated[Literal[STAGES] | None, tyro.conf.arg(help=REDO_HELP)], None)
    run_dir = (Annotated[Path | None, tyro.conf.arg(help=RUN_DIR_HELP, help_behavior_hint="")], None)
    prompt = (Annotated[Positional[str], tyro.conf.arg(help=PROMPT_HELP)],)
    audited = (Annotated[Positional[tuple[str, ...]], tyro.conf.arg(help=AUDITED_HELP, help_behavior_hint="")], ())
    run = (Annotated[Positional[Path], tyro.conf.arg(help=RUN_HELP)],)
    preset = (Annotated[Literal[tuple(PRESETS)] | None, tyro.conf.arg(help=PRESET_HELP)], None)
    places = {"prompt": audited, **_many(), "run_dir": run_dir, "redo": redo, "preset": preset}
    shared = tuple(f.name for f in fields(AskConfig))  # one flag of the audit for both stages that ask
    audit_flags = flags | {"evaluate": _flags("evaluate", recorded.get("evaluate", {}), hidden=shared)}
    without_model = _flags("capture", recorded.get("capture", {}), hidden=("model",))
    commands = [_command("audit", AUDIT_HELP, places | audit_flags | {"capture": without_model})]
    commands.append(_command("plan", PLAN_HELP, {"prompt": prompt, "preset": preset, **audit_flags}))
    commands += _stage_commands(flags, run, run_dir)
    model = (Annotated[Positional[str], tyro.conf.arg(help=MODEL_HELP)],)
    search = (Annotated[bool, tyro.conf.arg(help=SEARCH_HELP)], False)
    options = _unchecked(SearchConfig, (), {})
    amplify = _unchecked(AmplifyConfig, (), {})
    commands.append(_command("amplify", AMPLIFY_HELP, {"run": run, "options": amplify}))
    commands.append(_command("hookpoints", HOOKPOINTS_HELP, {"model": model, "search": search, "options": options}))
    places_of = (Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(help=COMPARED_HELP)],)
    made = (Annotated[Path | None, tyro.conf.arg(help=COMPARISON_HELP)], None)
    options = _unchecked(CompareConfig, (), {})
    dry = (Annotated[bool, tyro.conf.arg(help=DRY_RUN_COMPARE_HELP)], False)
    commands.append(
        _command("compare", COMPARE_HELP, {"runs": places_of, "study": made, "dry_run": dry, "options": options})
    )
    file = (Annotated[Positional[Path], tyro.conf.arg(help=FILE_HELP)],)
    commands.append(_command("review", REVIEW_HELP, {"run": run, "file": file}))
    place_of_runs = (Annotated[Positional[Path], tyro.conf.arg(help=PLACE_HELP)],)
    port = (Annotated[int, tyro.conf.arg(help=PORT_HELP)], 8765)
    commands.append(_command("view", VIEW_HELP, {"place": place_of_runs, "port": port}))
    commands.append(_command("version", VERSION_HELP, {}))
    markers = (OmitArgPrefixes, OmitSubcommandPrefixes, DisallowNone, PositionalMetavarFromFieldName)
    union: Any = Union[tuple(commands)]  # noqa: UP007
    return tyro.cli(union, prog="raigen", description=DESCRIPTION, args=args, config=markers)


def _many() -> dict[str, tuple[Any, Any]]:
    """What an audit of many prompts and models takes."""
    return {
        "model": (Annotated[UseAppendAction[tuple[str, ...]],
                            tyro.conf.arg(help=MODELS_HELP, help_behavior_hint="")], ()),
        "prompts": (Annotated[str | None, tyro.conf.arg(help=PROMPTS_HELP)], None),
        "study": (Annotated[Path | None, tyro.conf.arg(help=STUDY_HELP, help_behavior_hint="")], None),
        "workers": (Annotated[int, tyro.conf.arg(help=WORKERS_HELP)], 1),
        "ray": (Annotated[str | None, tyro.conf.arg(help=RAY_HELP)], None),
        "shared_sae": (Annotated[bool, tyro.conf.arg(help=SHARED_SAE_HELP)], False),
    }  # fmt: skip


def _stage_commands(flags: Mapping[str, tuple[Any, Any]], run: tuple[Any], run_dir: tuple[Any, Any]) -> list[Any]:
    commands = []
    for stage in STAGES:
        place: dict[str, tuple[Any, ...]] = {"run": run}
        if stage == "capture":
            target = (Annotated[Positional[str], tyro.conf.arg(help=PROMPT_OR_RUN_HELP)],)
            place = {"prompt": target, "run_dir": run_dir}
        if stage in ("annotate", "evaluate"):
            place["dry_run"] = (Annotated[bool, tyro.conf.arg(help=DRY_RUN_HELP)], False)
        redo_stage = (Annotated[Literal[stage] | None, tyro.conf.arg(help=REDO_HELP)], None)
        commands.append(_command(stage, STAGE_HELP[stage], {**place, "redo": redo_stage, stage: flags[stage]}))
    return commands


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


def values_of(config: Any) -> dict[str, Any]:
    """The values of the flags of a configuration, by field."""
    hidden = getattr(type(config), "hidden", frozenset())
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in hidden}
