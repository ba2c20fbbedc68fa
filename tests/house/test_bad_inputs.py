"""200 bad inputs to the command line: each ends in one clear error, none in a traceback, and none destroys a file."""

import json
import os
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tyro._parsers import LazyParserSpecification

from raigen.cli import main as cli
from raigen.judging.vlm import server
from raigen.judging.vlm.answers import Gate, StoppedError
from raigen.runs.files import write_text
from raigen.runs.run import Run
from tests.support.raw_server import RawServer, http
from tests.support.run_folder import make_run
from tests.support.tiny import save_embedder, save_pipeline, stable_diffusion
from tests.support.tiny_vlm import save_model

P = "a photo of a doctor"
DEEP = "[" * 100_000
LONG = "x" * 5000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole") / "run", n_attributes=2)
    line = {"neuron": 21, "label": "a hat", "by": "CLIP", "why_not": None}
    write_text(run.annotations_path, "".join(json.dumps(line | {"neuron": n}) + "\n" for n in (21, 38)))
    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "sd"
    save_pipeline(stable_diffusion(), folder, num_inference_steps=3, guidance_scale=2.0)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _parsers_are_built_once():
    """tyro builds the parser of a command anew at each call, which takes longer than all that is tested here."""
    built, evaluate = {}, LazyParserSpecification.evaluate

    def once(lazy):
        if lazy.description not in built:  # the docstring of the command
            built[lazy.description] = evaluate(lazy)
        return built[lazy.description]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazyParserSpecification, "evaluate", once)
        yield


class ImageMadeError(Exception):
    """An input that should have been refused went as far as the first image."""


@pytest.fixture(autouse=True)
def _no_image(monkeypatch, tmp_path):
    def made(*args, **options):
        raise ImageMadeError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RAIGEN_API_KEY", "sk-a-secret-of-the-test")
    monkeypatch.setattr("raigen.diffusion.capture.generate", made)
    monkeypatch.setattr("raigen.judging.fresh.recorded_pipeline", made)
    monkeypatch.setattr(server.Server.__init__, "__defaults__", (None, 1))  # one retry, at once
    monkeypatch.setattr(Gate, "wait", _at_once)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *args: asked.append(args) or "y")
    yield
    assert asked == []  # whether code of a model may run, say


def _at_once(gate, seconds):
    if gate._closed.is_set():
        raise StoppedError


def files_in(folder):
    return {path: os.readlink(path) if path.is_symlink() else path.read_bytes()
            for path in folder.rglob("*") if path.is_symlink() or path.is_file()}  # fmt: skip


def refused(argv, folder, capsys, expected, may_change=()):
    """Gives `argv` to the command line, which must refuse it in a few words and leave every file as it was."""
    before, known = files_in(folder), {command.__name__.lower(): command for command in cli.COMMANDS}
    with pytest.MonkeyPatch.context() as patch:  # a parser of all commands takes twice as long
        patch.setattr(cli, "COMMANDS", (known.get(argv[0], cli.Audit), cli.Version))
        try:
            status = cli.main(argv)
        except SystemExit as exit:
            status = exit.code
    shown = capsys.readouterr()
    assert status == 2, shown
    error = shown.err[shown.err.rfind("raigen: ") :] if "raigen: " in shown.err else shown.err
    assert re.search(expected, error), error
    assert "Traceback" not in shown.err and len(error) < 1700 and error.count("\n") < 25
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown.err)
    after = files_in(folder)
    assert [path for path, data in before.items() if after.get(path) != data and path.name not in may_change] == []


# Flags.

FLAGS = [
    ("--n-images", "nan", "invalid literal"), ("--n-images", "1e9", "invalid literal"),
    ("--n-images", "-0", "n_images: expected at least 50"), ("--n-images", "9" * 5000, "4300 digits"),
    ("--n-images", "1000000000", "n_images: expected at most 10,000,000"),
    ("--n-fresh-images", str(10**12), "n_fresh_images: expected at most"),
    ("--n-suggested-images", str(10**12), "n_suggested_images: expected at most"),
    ("--n-label-images", str(10**12), "n_label_images: expected at most"),
    ("--n-attributes", str(10**30), "n_attributes: expected at most"),
    ("--n-top-images", str(10**30), "n_top_images: expected at most"),
    ("--n-seeds", str(10**12), "n_seeds: expected at most"),
    ("--base-seed", str(2**64), "base_seed: expected at most"), ("--base-seed", "-1", "base_seed: expected 0 or"),
    ("--sae-seed", str(-(2**70)), "sae_seed: expected at most"),
    ("--batch-size", str(10**30), "batch_size: expected at most"),
    ("--reservoir-mb", str(10**20), "reservoir_mb: expected at most"),
    ("--tokens-per-batch", str(10**18), "tokens_per_batch: expected at most"),
    ("--guidance-scale", "1e400", "guidance_scale: expected a number in"), ("--lr", "inf", "lr: expected a finite"),
    ("--lr", "1e-400", "lr: expected a number above 0"), ("--timeout", "inf", "timeout: expected"),
    ("--confidence", "0.99999999999999999", "confidence: expected"), ("--percentile", "nan", "percentile: expected"),
    ("--max-cost", "inf", "max_cost: expected"), ("--min-auroc", "\u066b\u0668", "could not convert"),
    ("--d-sae", "0", "d_sae: expected 2 or more"), ("--d-sae", "1", "d_sae: expected 2 or more"),
    ("--k", "0", "k: expected 1 or more"), ("--group-sizes", "0", "group_sizes: expected"),
    ("--group-sizes", "", "group_sizes: expected"), ("--group-sizes", "-3,10", "group_sizes: expected positive"),
    ("--group-sizes", "1.5", "invalid literal"),
    ("--height", "0", "height: expected a number in"), ("--width", "-64", "width: expected a number in"),
    ("--height", str(10**12), "height: expected a number in"),
    ("--num-inference-steps", str(10**12), "num_inference_steps: expected a number in"),
    ("--device", "cuda:99", "device: 'cuda:99' was requested"), ("--device", "cuda:\u0663", "device: expected auto"),
    ("--device", "cuda:99999999999999", "device: expected auto"), ("--device", "mps", "device: expected auto"),
    ("--device", "", "device: expected a text"), ("--device", "cpu\n", "device: expected auto"),
    ("--dtype", "int4", "dtype: expected"), ("--revision", "main", "revision: .* is a folder"),
    ("--hookpoint", "", "hookpoint: expected a text"), ("--variant", "", "variant: expected a text"),
    ("--embedder", "", "embedder: expected a text"), ("--embedder", "~nosuchuser", "embedder: expected a CLIP"),
    ("--embedder", "/dev/null", "embedder: expected a CLIP"), ("--embedder", LONG, "embedder: expected a CLIP"),
    ("--negative-prompt", os.fsdecode(b"a\xffb"), "negative_prompt: expected a text of whole"),
    ("--model", "~nosuchuser/x/y", "model: expected 'portraits'"), ("--model", "/dev/null", "model: expected"),
    ("--model", "\x1b[31m\u202e", "model: expected"), ("--model", LONG, "no such folder|expected"),
    ("--run-dir", "/dev/null/x", "expected a place to write to"), ("--run-dir", LONG, "expected a place to write"),
    ("--run-dir", os.fsdecode(b"\xff\xfe"), "expected the name of a folder in UTF-8"),
    ("--workers", "0", "workers: expected 1 or more"), ("--prompts", "", "prompts: expected professions"),
    ("--ray", "", "ray: expected the address"), ("--redo", "sing", "redo"), ("--preset", "paper", "preset"),
    ("--attributes", "", "attributes: expected a text"), ("--calibration", "", "calibration: expected a text"),
    ("--vocabulary", "a\nb", "vocabulary: expected one of"), ("--attributes", "/dev/zero", "there is no file"),
    ("--judge", "", "judge: expected a text that is not empty"), ("--judge", "file:", "judge: expected auto"),
    ("--judge", "file:.", "expected a CSV file of verdicts"), ("--judge", "file:/dev/null", "expected a CSV file"),
    ("--judge", "python:..:x", "expected the function x"), ("--judge", "scripted:/nope", "expected a file of answers"),
    ("--judge", "openai:m@http://", "expected http:// or https://"),
    ("--judge", "openai:m@http://h:99999/v1", "expected http:// or https://"),
    ("--judge", "openai:m@http://u:secret@h/v1", "put the key into the environment"),
    ("--judge", "openai:m@file:///etc/passwd", "expected http:// or https://"),
    ("--judge", "openai:m@http://[::g]/v1", "expected http:// or https://"),
    ("--judge", "openai:m@http://h:\uff18\uff10/v1", "expected http:// or https://"),
    ("--judge", "openai:m@http://h\u202e/v1", "expected http:// or https://"),
    ("--annotator", "CLIP", "annotator: expected clip"), ("--annotator", "transformers:", "annotator: expected clip"),
    ("--annotator", "emblems", "annotator: expected clip"), ("--judge", "emblems", "'emblems' can judge only"),
    ("--second-view", "", "second_view: expected a text"), ("--second-view", "LOOKS", "LOOKS cannot be loaded"),
    ("--batch-size", "AUTO", "invalid literal|auto"), ("--batch-size", "auto,4", "auto"),
    ("--first-step", "1", r"first_step: expected a number in \(0, 1\)"), ("--first-step", "1e-400", "first_step: exp"),
    ("--n-look-images", "-1", "n_look_images: expected 0 or"), ("--n-families", str(10**30), "n_families: expected at"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value", "expected"), FLAGS, ids=[f"{f} {v[:20]!r}" for f, v, _ in FLAGS])
def test_a_flag(flag, value, expected, tmp_path, capsys):
    refused(["audit", P, flag, value], tmp_path, capsys, expected)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("", "not empty"), (" \n\t", "not empty"), ("\u200b\ufeff", "not empty"), ("a " * 200_000, "at most 10,000"),
     (os.fsdecode(b"\xff"), "whole characters"), ("-x", "x")],
)  # fmt: skip
def test_a_prompt(prompt, expected, tmp_path, capsys):
    refused(["audit", prompt], tmp_path, capsys, expected)


# Files of the user's.

FILES = {
    "labels of 300,000 lines": ("--attributes", "".join(f"label {n}\n" for n in range(300_000)), "at most 20,000"),
    "prompts of 300,000 lines": ("--prompts", "".join(f"prompt {n}\n" for n in range(300_000)), "at most 20,000"),
    "only comments": ("--attributes", "# a\n\n# b\n", "expected one attribute a line"),
    "invisible labels": ("--attributes", "\u200b\n\u202e\n", "expected one attribute a line"),
    "surrogates": ("--attributes", b"a \xed\xa0\x80\n", "expected a text in UTF-8"),
    "nulls": ("--vocabulary", "a\0b\nc\n", "null characters"),
    "one phrase": ("--vocabulary", "a hat\n", "at least two phrases"),
    "UTF-16 without a mark": ("--prompts", "a hat\n".encode("utf-16-be"), "null characters"),
    "a line of 2 MB": ("--prompts", "x" * 2_000_000, "at most 10,000 characters"),
    "a header of 200,000 letters": ("--calibration", "x" * 200_000, "cannot be read"),
    "a cell of 200,000 letters": ("--calibration", f"judged,true\n{'x' * 200_000},no\n", "cannot be read"),
    "a column twice": ("--calibration", "judged,judged,true\nyes,no,yes\n", "expected one column judged"),
    "a row too long": ("--calibration", "judged,true,label\nyes,no,a hat, red\n", "expected 3 cells in line 2"),
    "a row too short": ("--calibration", "judged,true\nyes\n", "expected yes or no"),
    "no rows": ("--calibration", "judged,true\n", "expected one image a line"),
    "maybe": ("--calibration", "judged,true\nmaybe,no\n", "expected yes or no"),
    "a confidence of inf": ("--judge file:", "file,label,shows,confidence\na,b,yes,inf\n", "a confidence in"),
    "a seed that is none": ("--judge file:", "seed,label,shows\n1e3,b,yes\n", "or its seed"),
    "a label twice": ("--judge file:", "file,label,label,shows\na,b,c,yes\n", "expected one column label"),
    "two answers": ("--judge file:", "file,label,shows\na,b,yes\na,b,no\n", "expected one verdict"),
    "a script of numbers": ("--annotator scripted:", "[1, 2]", "expected entries such as"),
    "a script of nothing": ("--annotator scripted:", "\n\n", "it has none"),
    "a script too deep": ("--annotator scripted:", DEEP, "nested too deeply"),
    "a script with an endless number": ("--annotator scripted:", f'{{"question": {"9" * 5000}}}', "is broken"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file(name, tmp_path, capsys):
    flag, data, expected = FILES[name]
    flag, _, kind = flag.partition(" ")
    path = tmp_path / "given.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    refused(["audit", P, flag, f"{kind}{path}"], tmp_path, capsys, expected)


IN_PLACE_OF_A_FILE = {
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("/nope"),
}
READS_A_FILE = ("--attributes ", "--vocabulary ", "--prompts ", "--calibration ", "--judge file:", "--judge scripted:")


@pytest.mark.parametrize("name", IN_PLACE_OF_A_FILE)
def test_no_file(name, tmp_path, capsys):
    IN_PLACE_OF_A_FILE[name](tmp_path / "given")
    for flag in READS_A_FILE:
        refused(["audit", P, *f"{flag}{tmp_path}/given".split(" ")], tmp_path, capsys, "expected")


# Folders of models.


def edited(name, **values):
    def spoil(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def replaced(name, data):
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def pickled(folder):
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")


def of_code(folder):
    """A model whose folder brings code; nothing of it may run, nor may anybody be asked."""
    edited("config.json", model_type="evil", auto_map={name: f"evil.{name}" for name in ("AutoConfig", "AutoModel")})(
        folder
    )
    (folder / "evil.py").write_text("open('PWNED', 'w')")


def of_a_part_of_code(folder):
    edited("model_index.json", text_encoder=["transformers", "AutoModel"])(folder)
    of_code(folder / "text_encoder")


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
MODELS = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
    "an index of null": (replaced("model_index.json", "null"), "expected a JSON object"),
    "an unknown class": (edited("model_index.json", _class_name="EvilPipeline"), "has no pipeline 'EvilPipeline'"),
    "a module as class": (edited("model_index.json", _class_name="pipelines"), "has no pipeline 'pipelines'"),
    "a text as class": (edited("model_index.json", _class_name="__file__"), "has no pipeline '__file__'"),
    "a part of another library": (edited("model_index.json", unet=["os", "system"]), "cannot be loaded"),
    "weights that are cut": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:999]), "cannot be load"),
    "weights that are a pointer": (replaced(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "cannot be load"),
    "a pickle that runs a command": (pickled, "cannot be loaded"),
    "a part that brings code": (of_a_part_of_code, "cannot be loaded: The component"),
    "a tokenizer without its files": (lambda folder: shutil.rmtree(folder / "tokenizer"), "knows 2 words"),
    "a tokenizer without an end": (edited("tokenizer/tokenizer_config.json", model_max_length=10**30), "failed with"),
    "a size in letters": (edited("unet/config.json", sample_size="a"), "as sample_size"),
    "a size of one": (edited("unet/config.json", sample_size=[8]), "as sample_size"),
    "guidance that is no number": (replaced("raigen.json", '{"guidance_scale": NaN}'), "expected a number from 0"),
    "no steps": (replaced("raigen.json", '{"num_inference_steps": -3}'), "expected a whole number from 1"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name, model, tmp_path, capsys):
    spoil, expected = MODELS[name]
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    spoil(folder)
    flags = ["--model", str(folder), "--n-images", "50", "--d-sae", "64", "--embedder", "portraits"]
    refused(["audit", P, *flags], tmp_path, capsys, expected)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("license", ["[[[[", "!!python/object/apply:os.system ['touch PWNED']"])
def test_a_card_that_cannot_be_read_names_no_license(license, model, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    from raigen.diffusion.loading import find_source, license_of

    assert license_of(find_source(str(folder))) is None and not (tmp_path / "PWNED").exists()


# Embedders, and models that see images.


def parts(name, **values):
    """Changes values within a part of a configuration."""

    def spoil(folder):
        entry = json.loads((folder / "config.json").read_text())
        entry[name].update(values)
        (folder / "config.json").write_text(json.dumps(entry))

    return spoil


def endless_weights(folder):
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, path, {"format": "pt"})


def unpickled(name):
    def spoil(folder):
        (folder / name).unlink()
        (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")

    return spoil


EMBEDDERS = {
    "a configuration of null": ("dinov2", replaced("config.json", "null"), "cannot be loaded: TypeError"),
    "a width in letters": ("dinov2", edited("config.json", hidden_size="a"), "cannot be loaded: .*hidden_size"),
    "no heads": ("dinov2", edited("config.json", num_attention_heads=0), "cannot be loaded: ZeroDivisionError"),
    "another width": ("dinov2", edited("config.json", hidden_size=64), "cannot be loaded: RuntimeError"),
    "an unknown activation": ("dinov2", edited("config.json", hidden_act="no"), "cannot be loaded: KeyError: 'no'"),
    "a part in a list": ("siglip", edited("config.json", vision_config=[1]), "cannot be loaded: .*vision_config"),
    "an unknown model": ("siglip", edited("config.json", model_type="x"), "cannot be loaded: "),
    "code of a stranger": ("siglip", of_code, "cannot be loaded: .*custom code"),
    "a pickle that runs a command": ("dinov2", unpickled("model.safetensors"), "cannot be loaded: UnpicklingError"),
    "weights that are no numbers": ("dinov2", endless_weights, "numbers of .*not finite"),
    "a processor in a list": ("dinov2", replaced("preprocessor_config.json", "[]"), "cannot be loaded: AttributeErr"),
    "images of five colors": (
        "dinov2", edited("preprocessor_config.json", image_mean=[0.1] * 5), "fails with a plain one"),
    "a tokenizer of nothing": ("siglip", replaced("tokenizer.json", "{}"), "cannot be loaded: "),
    "a tokenizer in a list": ("siglip", replaced("tokenizer_config.json", "[]"), "cannot be loaded: "),
}  # fmt: skip


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedders")
    for kind in ("siglip", "dinov2"):
        save_embedder(kind, folder / kind)
    return folder


@pytest.mark.parametrize("name", EMBEDDERS)
def test_an_embedder(name, embedders, tmp_path, capsys):
    kind, spoil, expected = EMBEDDERS[name]
    spoil(Path(shutil.copytree(embedders / kind, tmp_path / "embedder")))
    refused(["audit", P, "--embedder", "embedder"], tmp_path, capsys, f"embedder: expected .*{expected}")
    assert not (tmp_path / "PWNED").exists()


SEEING = {
    "a configuration of null": (replaced("config.json", "null"), "it cannot be loaded: TypeError"),
    "a part of 3": (edited("config.json", text_config=3), "it cannot be loaded: .*text_config"),
    "no heads": (parts("text_config", num_attention_heads=0), "it cannot be loaded: ZeroDivisionError"),
    "code of a stranger": (of_code, "it cannot be loaded: .*custom code"),
    "a model of another kind": (edited("config.json", model_type="siglip"), "it is 'siglip'"),
}
OPENED = {
    "a tokenizer of nothing": (replaced("tokenizer.json", "{}"), "cannot be loaded on cpu: "),
    "a processor in a list": (replaced("processor_config.json", "[]"), "cannot be loaded on cpu: AttributeError"),
    "a pickle that runs a command": (unpickled("model.safetensors"), "cannot be loaded on cpu: UnpicklingError"),
    "a template that never ends": (replaced("chat_template.jinja", "{% for %}"), "no reply: TemplateSyntaxError"),
    "an end in letters": (replaced("generation_config.json", '{"eos_token_id": "a"}'), "no reply: "),
}


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("seeing") / "llava")


@pytest.mark.parametrize("name", SEEING)
def test_a_model_that_sees(name, seeing, tmp_path, capsys):
    spoil, expected = SEEING[name]
    spoil(Path(shutil.copytree(seeing, tmp_path / "llava")))
    for flag in ("--annotator", "--judge"):
        argv = ["audit", P, flag, "transformers:llava"]
        refused(argv, tmp_path, capsys, f"transformers:llava: expected an image-text-to-text model.*{expected}")
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", OPENED)
def test_a_model_that_sees_and_cannot_be_opened(name, seeing, whole, tmp_path, capsys):
    """What only its weights, or what prepares its texts, can tell: at the first question."""
    spoil, expected = OPENED[name]
    spoil(Path(shutil.copytree(seeing, tmp_path / "llava")))
    run = shutil.copytree(whole.dir, tmp_path / "run")
    argv = ["annotate", str(run), "--redo", "annotate", "--annotator", "transformers:llava"]
    refused(argv, tmp_path, capsys, expected, may_change=("run.json",))
    assert not (tmp_path / "PWNED").exists()


# Folders of runs and studies.


def manifest(change):
    def spoil(folder):
        entry = json.loads((folder / "run.json").read_text())
        change(entry)
        (folder / "run.json").write_text(json.dumps(entry))

    return spoil


def lines(file, change):
    def spoil(folder):
        entries = [json.loads(line) for line in (folder / file).read_text().splitlines()]
        (folder / file).write_text("".join(json.dumps(entry) + "\n" for entry in change(entries)))

    return spoil


def attribute(**values):
    def spoil(folder):
        entries = json.loads((folder / "attributes.json").read_text())
        (folder / "attributes.json").write_text(json.dumps([entry | values for entry in entries]))

    return spoil


RUNS = {
    "a stage that is a list": (manifest(lambda m: m["stages"].update(train=[1])), "a dict of dicts as stages"),
    "a stage that is null": (manifest(lambda m: m["stages"].update(train=None)), "a dict of dicts as stages"),
    "dropped settings in a list": (manifest(lambda m: m.update(dropped=[1])), "expected objects as dropped"),
    "a machine in a list": (manifest(lambda m: m.update(machine=[1])), "expected objects as dropped"),
    "outputs in a list": (manifest(lambda m: m["stages"]["discover"].update(outputs=["a"])), "expected objects as"),
    "a format of True": (manifest(lambda m: m.update(format=True)), "expected a int as format"),
    "a format from the future": (manifest(lambda m: m.update(format=10**30)), "upgrade it"),
    "60.5 images": (manifest(lambda m: m["stages"]["capture"]["config"].update(n_images=60.5)), "a whole number"),
    "no images": (lines("samples.jsonl", lambda all: []), "expected"),
    "images in another order": (lines("samples.jsonl", lambda all: all[::-1]), "the indices do not rise"),
    "half an image": (lines("samples.jsonl", lambda all: [one | {"index": 0.5} for one in all]), "index is 0.5"),
    "a seed in letters": (lines("samples.jsonl", lambda all: [one | {"seed": "a"} for one in all]), "seed is 'a'"),
    "a rank in letters": (attribute(rank="a"), "rank is 'a'"),
    "a label of numbers": (attribute(label=3), "label is 3"),
    "an image that is a pipe": (lambda f: ((f / "images/00000.png").unlink(), os.mkfifo(f / "images/00000.png")), "is"),
    "a lock that is a link": (lambda f: (f / ".lock").symlink_to(f.parent / "mine.txt"), "it is a link"),
    "a half-written report that is a link": (
        lambda f: (f / "report.html.part").symlink_to(f.parent / "mine.txt"), "expected a place to write to"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run(name, whole, tmp_path, capsys):
    spoil, expected = RUNS[name]
    folder = Path(shutil.copytree(whole.dir, tmp_path / "run"))
    (folder / ".lock").unlink(missing_ok=True)
    (tmp_path / "mine.txt").write_text("mine")
    spoil(folder)
    refused(["report", str(folder), "--redo", "report"], tmp_path, capsys, expected,
            may_change=("run.json", "report.html.part"))  # fmt: skip


@pytest.mark.parametrize("file", ["../mine.txt", "{tmp}/mine.txt", "linked/mine.txt"])
def test_a_run_from_a_stranger_drops_no_file_outside_itself(file, whole, tmp_path, capsys):
    folder = Path(shutil.copytree(whole.dir, tmp_path / "run"))
    (tmp_path / "mine.txt").write_text("mine")
    (folder / "linked").symlink_to(tmp_path)
    outputs = {file.format(tmp=tmp_path): 4, "neurons.csv": None}
    manifest(lambda m: m["stages"]["discover"].update(outputs=outputs))(folder)
    Run(folder).forget("discover")
    assert (tmp_path / "mine.txt").read_text() == "mine" and not (folder / "neurons.csv").exists()


def twin(whole, tmp_path):
    """Two runs that can be compared."""
    first, second = (Path(shutil.copytree(whole.dir, tmp_path / name)) for name in ("run", "run2"))
    manifest(lambda m: m["stages"]["capture"]["config"].update(model="portraits-transformer"))(second)
    return str(first), str(second)


def study_of(tmp_path, runs, **more):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/study.json").write_text(json.dumps({"format": 1, "options": {}, "runs": runs} | more))
    return str(tmp_path / "study")


OTHER = {"prompt": "x", "model": "y", "folder": "x--y"}


def test_a_comparison_takes_no_study_of_other_runs(whole, tmp_path, capsys):
    study = study_of(tmp_path, [OTHER])
    refused(["compare", *twin(whole, tmp_path), "--study", study], tmp_path, capsys, "it is a study of other runs")


@pytest.mark.parametrize(
    ("runs", "more", "expected"),
    [([OTHER | {"folder": 3}], {}, "folder is 3"), ([OTHER | {"z": 1}], {}, "runs with a prompt"), ([[1]], {}, "runs"),
     ([], {"options": {"capture": [1]}}, "a dict of dicts as options"), ([], {}, "two or more to compare"),
     ([OTHER | {"folder": "../../../etc"}], {}, "was not audited"), ([OTHER | {"folder": "a\0"}], {}, "not audited")],
)  # fmt: skip
def test_a_study(runs, more, expected, tmp_path, capsys):
    refused(["compare", study_of(tmp_path, runs, **more)], tmp_path, capsys, expected)


AXES = {
    "a.toml": ['"" = ["x", "y"]', 'a = {x = inf, y = 0.5}', 'a = ["x", "x\\u200b"]', "a = " + "[" * 5000, "# only",
               'a = {x = true, y = false}'],
    "a.json": ['{"a": {"x": ' + "9" * 400 + ', "y": 1}}', '{"a": {"x": 1e999, "y": 0}}', '{"a": [["x"], ["y"]]}', "3"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, all in AXES.items() for text in all])
def test_axes(name, text, whole, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    flags = ["--study", str(tmp_path / "new"), "--closed-set", str(tmp_path / name)]
    refused(["compare", *twin(whole, tmp_path), *flags], tmp_path, capsys, "closed_set: ")


def picture(width, height):
    """A PNG that says it has this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


COMMANDS = {
    "no attribute of this rank": (["amplify", "RUN", "--attribute", "99"], "rank of a listed attribute"),
    "an endless rank": (["amplify", "RUN", "--attribute", str(10**30)], "attribute: expected at most"),
    "steps backward": (["amplify", "RUN", "--attribute", "1", "--steps", "5", "2"], "steps: expected"),
    "an endless strength": (["amplify", "RUN", "--attribute", "1", "--strength", "1e400"], "strength: expected"),
    "a thousand billion images": (["amplify", "RUN", "--attribute", "1", "--n-images", str(10**12)], "at most"),
    "one run": (["compare", "RUN"], "expected a study, or two runs or more; got one run"),
    "one run twice": (["compare", "RUN", "RUN", "--study", "new"], "two or more to compare"),
    "a review of null": (["review", "RUN", "null.json"], "expected the file that"),
    "a review that is an object": (["review", "RUN", "object.json"], "reviewed is no list"),
    "a review of another run": (["review", "RUN", "other.json"], "are of other images"),
    "a port": (["view", "RUN", "--port", "99999999"], "port: expected a free port"),
    "a prompt for a study": (["audit", P, "b", "--study", "RUN"], "it holds other files"),
    "a run within a run": (["audit", "b", "--run-dir", "RUN/images"], "it holds other files"),
    "another prompt": (["audit", "b", "--run-dir", "RUN"], "capture was run with prompt"),
    "hookpoints of nobody": (["hookpoints", "~nosuchuser/x"], "no such folder|expected"),
    "no command": (["audti", P], "audti"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command(name, whole, tmp_path, capsys):
    run = shutil.copytree(whole.dir, tmp_path / "run")
    (tmp_path / "null.json").write_text("null")
    (tmp_path / "object.json").write_text('{"format": 1, "reviewed": {}}')
    other = {"neuron": 21, "label": "a", "sha256": "00", "shows": [], "does_not": []}
    (tmp_path / "other.json").write_text(json.dumps({"format": 1, "reviewed": [other]}))
    argv, expected = COMMANDS[name]
    refused([part.replace("RUN", str(run)) for part in argv], tmp_path, capsys, expected)


def test_a_mask_that_would_fill_the_memory(tmp_path):
    from raigen.amplification.rendering import read_mask
    from raigen.errors import RaigenError

    for data in (b"text", picture(50_000, 50_000), picture(0, 0)):
        (tmp_path / "mask.png").write_bytes(data)
        with pytest.raises(RaigenError, match="mask: expected an image"):
            read_mask(str(tmp_path / "mask.png"))


# Servers.


def sends(data):
    return lambda connection, body: connection.sendall(data)


def chat(**message):
    return http(json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}))


def endless(connection, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def chunked(size):
    return sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nfoo\r\n")


SERVERS = {
    "html": sends(http("<html>hi</html>")), "nothing": sends(http()), "204": sends(http("", "204 No Content")),
    "a redirect": sends(http("", "302 Found", "Location: http://127.0.0.2:1/")), "HTTP/0.9": sends(b"hello\r\n"),
    "no status": sends(b"HTTP/1.1 abc OK\r\n\r\n"), "status 999": sends(http("{}", "999 X")),
    "only 100": sends(b"HTTP/1.1 100 Continue\r\n\r\n"), "the end": lambda connection, body: None,
    "less than it says": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}"),
    "a negative length": sends(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"),
    "a chunk of letters": chunked(b"ZZZZ"), "a negative chunk": chunked(b"-5"), "a vast chunk": chunked(b"f" * 16),
    "no end": endless, "gzip that nobody asked for": sends(http(zlib.compress(bytes(10**6)))),
    "Latin-1": sends(http('{"choices": "é"}'.encode("latin-1"))), "nulls": sends(http(bytes(100))),
    "deep JSON": sends(http(DEEP)), "an endless number": sends(http('{"choices": ' + "9" * 5000 + "}")),
    "null": sends(http("null")), "choices of null": sends(http('{"choices": null}')),
    "choices in letters": sends(http('{"choices": "x"}')), "a choice of null": sends(http('{"choices": [null]}')),
    "a message of letters": sends(http('{"choices": [{"message": "x"}]}')), "a content of 3": sends(chat(content=3)),
    "a content in a list": sends(chat(content=[{"type": "text", "text": "red"}])), "no content": sends(chat()),
    "half a character": sends(chat(content='{"color": "\ud800"}')),
    "its key": sends(http('{"error": {"message": "bad sk-a-secret-of-the-test"}}', "401 Unauthorized")),
    "escapes": sends(http('{"error": {"message": "\\u001b[31m\\u202e pwn"}}', "400 Bad Request")),
    "bytes as an error": sends(http(b"\xff\xfe", "400 Bad Request")),
    "a wait of ages": sends(http("", "429 Wait", "Retry-After: 99999999999999999999")),
    "a wait until the year 9999": sends(http("", "429 Wait", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT")),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVERS)
def test_a_server(name, whole, tmp_path, capsys):
    served = RawServer(SERVERS[name])
    run = shutil.copytree(whole.dir, tmp_path / "run")
    argv = ["annotate", str(run), "--redo", "annotate", "--annotator", f"openai:m@{served.url}", "--timeout", "2"]
    try:
        refused(argv, tmp_path, capsys, "expected|no reply|questions", may_change=("run.json",))
    finally:
        served.close()
    assert not any(b"sk-a-secret" in data for data in files_in(tmp_path).values() if isinstance(data, bytes))


@pytest.mark.parametrize("url", ["http://.../v1", "http://" + "a" * 300 + "/v1", "http://h%00/v1", "http://127.0.0.1:1/v1",
                                 "https://127.0.0.1:1/v1", "http://ex\u00e4mple.invalid/v1"])  # fmt: skip
def test_no_server(url, whole, tmp_path, capsys):
    run = shutil.copytree(whole.dir, tmp_path / "run")
    argv = ["annotate", str(run), "--redo", "annotate", "--annotator", f"openai:m@{url}", "--timeout", "2"]
    refused(argv, tmp_path, capsys, "expected a server", may_change=("run.json",))


def test_there_are_200():
    module = sys.modules[__name__]
    tables = (
        FLAGS,
        FILES,
        IN_PLACE_OF_A_FILE,
        MODELS,
        EMBEDDERS,
        SEEING,
        OPENED,
        RUNS,
        COMMANDS,
        SERVERS,
        *AXES.values(),
    )
    assert sum(map(len, tables)) >= 200 and module
