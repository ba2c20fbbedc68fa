"""Measures the bundled models with the judge, and writes their model cards."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from raigen.config import PORTRAITS
from raigen.diffusion.generation import Settings, defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.embeddings import Embedder
from raigen.errors import RaigenError
from raigen.runs.pixels import image_grid
from raigen.runs.run import Run
from raigen.stats import rate_interval
from raigen.world.models import BUNDLED
from raigen.world.train.judge import half_denoised, round_trip
from raigen.world.worlds import WORLDS, World, world_of

SEEDS_FROM = 2_000_000_000  # apart from the seeds of audits and of fresh images
BATCH = 32


_PORTRAITS = WORLDS[PORTRAITS]
OWN_ORIGIN = "No image, text or weight from elsewhere went in. Apache-2.0."


def measure(model: str, n_images: int, n_named: int, runs: Path | None = None) -> dict[str, Any]:
    """Judges `n_images` images per prompt and `n_named` images per named attribute.

    With `runs`, a folder with finished captures of the bare prompts, the images of these captures are judged instead of
    new ones.
    """
    pipe = load_pipeline(model, "auto")
    settings = defaults(pipe, model)

    def images(prompt: str, count: int) -> list[Image.Image]:
        seeds = range(SEEDS_FROM, SEEDS_FROM + count)
        return [image for batch in generate_images(pipe, prompt, seeds, settings, BATCH) for image in batch]

    def bare(prompt: str) -> list[Image.Image]:
        return images(prompt, n_images) if runs is None else captured(runs, prompt, settings, n_images)

    world = world_of(model) or _PORTRAITS
    by_prompt = {prompt: seen(prompt, bare(prompt), world) for prompt in world.prompts}
    named = {}
    for index, value in enumerate(world.values):
        prompt = f"{world.prompts[index % len(world.prompts)]}, {value.phrase}"
        verdict = world.judge(images(prompt, n_named))
        named[value.name] = float(verdict.shows[:, index].sum() / max(1, verdict.readable.sum()))
    result = {"settings": settings._asdict(), "n_images": n_images, "n_named": n_named, "prompts": by_prompt,
              "named": named}  # fmt: skip
    return result | {"summary": summary(result)}


def measure_readers(world: World = _PORTRAITS) -> dict[str, Any]:
    """How well the judge and CLIP recognize attributes, in drawings before and after the autoencoder."""
    vae = load_pipeline(world.pipeline, "auto").vae
    return {"judge": judge_quality(vae, world=world), "unreadable": garbage_quality(vae, world=world),
            "clip": clip_quality(world=world)}  # fmt: skip


def captured(runs: Path, prompt: str, settings: Settings, count: int) -> list[Image.Image]:
    """The first images of this prompt in the captures below `runs` that used the bundled model and `settings`; each
    seed once.

    Raises RaigenError when there are fewer than `count`.
    """
    images: dict[int, Image.Image] = {}
    wanted = {"model": BUNDLED, **settings._asdict()}
    for manifest in sorted(runs.rglob("run.json")):
        run = Run(manifest.parent)
        record = run.manifest["stages"].get("capture", {})
        if record.get("finished") and record["config"]["prompt"] == prompt:
            facts = run.facts_of("capture")
            if all(facts[name] == value for name, value in wanted.items()):
                new = [sample for sample in run.samples() if sample.seed not in images]
                images |= {sample.seed: run.read_image(sample) for sample in new[: count - len(images)]}
    if len(images) < count:
        raise RaigenError(f"{runs}: expected {count} images of {prompt!r}; found {len(images)}")
    return list(images.values())


def seen(prompt: str, images: Sequence[Image.Image], world: World = _PORTRAITS) -> dict[str, Any]:
    """The rates that the judge sees in images of one prompt, with the planted rates."""
    verdict = world.judge(images)
    n = max(1, int(verdict.readable.sum()))
    right = verdict.profession[verdict.readable] == world.prompts.index(prompt)
    shares = (verdict.shows.sum(0) / n).tolist()
    return {
        "readable": float(verdict.readable.mean()),
        "profession": float(right.mean()),
        "planted": world.planted(prompt),
        "seen": dict(zip(world.value_names, shares, strict=True)),
        "controls": {name: shares[world.value_names.index(name)] for name in world.control_values(prompt)},
    }


def summary(result: dict[str, Any]) -> dict[str, float]:
    """The summary of the model card: shares in [0, 1] over all ten prompts."""
    prompts = result["prompts"].values()
    pairs = [(p["seen"][name], rate) for p in prompts for name, rate in p["planted"].items() if rate >= 0.0099]
    kept = [0.2 * rate <= share <= 3 * rate for share, rate in pairs]
    rare = [0.2 * rate <= share <= 3 * rate for share, rate in pairs if rate <= 0.05]
    controls = [share for p in prompts for share in p["controls"].values()]
    named = list(result["named"].values())
    return {
        "readable": float(np.mean([p["readable"] for p in prompts])),
        "profession right": float(np.mean([p["profession"] for p in prompts])),
        "values planted at >= 1 % seen at 0.2-3x": float(np.mean(kept)),
        "of those planted at 1-5 %": float(np.mean(rare)),
        "values that appear in >= 80 % when named": float(np.mean([share >= 0.8 for share in named])),
        "highest rate of a control": float(max(controls)),
        "controls seen in <= 0.2 %": float(np.mean([share <= 0.002 for share in controls])),
    }


def judge_quality(vae, count: int = 1500, world: World = _PORTRAITS) -> dict[str, Any]:
    """Accuracy per field and balanced accuracy per value, on held-out drawings before and after the autoencoder."""
    drawn = [drawing(index, world) for index in range(count)]
    pixels = np.stack([np.asarray(image) for image, _ in drawn])
    decoded = [Image.fromarray(array) for array in round_trip(vae, pixels)]
    truth = np.array([[name in record.shown() for name in world.value_names] for _, record in drawn])
    result = {}
    for name, images in (("drawn", [image for image, _ in drawn]), ("decoded", decoded)):
        verdict = world.judge(images)
        balanced = {}
        for index, value in enumerate(world.values):
            shows = verdict.shows[:, index]
            balanced[value.name] = float((shows[truth[:, index]].mean() + (~shows[~truth[:, index]]).mean()) / 2)
        fields = {}
        for field in world.choices:
            columns = [index for index, value in enumerate(world.values) if value.field == field]
            fields[field] = float((verdict.shows[:, columns] == truth[:, columns]).all(1).mean())
        professions = np.array([world.professions.index(record.profession) for _, record in drawn])
        result[name] = {
            "fields": fields | {"profession": float((verdict.profession == professions).mean())},
            "balanced": balanced,
            "readable": float(verdict.readable.mean()),
        }
    return result


def garbage_quality(vae, count: int = 200, world: World = _PORTRAITS) -> dict[str, float]:
    """The share of images the judge calls unreadable, of noise, of real photographs and of half-denoised images."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)
    photos, crops = load_sample_images().images, []  # a temple, a flower
    for index in range(count):
        photo = photos[index % 2]
        y, x = rng.integers(0, photo.shape[0] - 160), rng.integers(0, photo.shape[1] - 160)
        crops.append(Image.fromarray(photo[y : y + 160, x : x + 160]).resize((64, 64)))
    drawn = np.stack([np.asarray(drawing(index, world)[0]) for index in range(count)])
    kinds = {
        "noise": [Image.fromarray(array) for array in noise],
        "photographs": crops,
        "half-denoised": [Image.fromarray(array) for array in half_denoised(vae, drawn, seed=11)],
    }
    return {kind: float((~world.judge(images).readable).mean()) for kind, images in kinds.items()}


def drawing(index: int, world: World = _PORTRAITS):
    """Held-out drawing `index` with its record."""
    rng = np.random.default_rng((99, index))
    record = world.sample_balanced(rng)
    return world.draw(record, rng), record


def clip_quality(count: int = 1000, world: World = _PORTRAITS) -> dict[str, float]:
    """How often CLIP finds the true caption among 20 captions that each name one attribute."""
    embedder, rng = Embedder(world.embedder, "cpu"), np.random.default_rng(5)
    images, right, wrong, professions = [], [], [], []
    for index in range(count):
        image, record = drawing(100_000 + index, world)
        shown = record.shown()
        mine = world.value_names.index(shown[rng.integers(len(shown))])
        absent = [i for i, name in enumerate(world.value_names) if name not in shown]
        images.append(image)
        right.append(mine)
        wrong.append(rng.choice(absent, size=19, replace=False))
        professions.append(world.professions.index(record.profession))
    texts = embedder.texts([f"{prompt}, {value.phrase}" for prompt in world.prompts for value in world.values])
    texts = texts.reshape(len(world.prompts), len(world.values), -1)
    embedded = embedder.images(images)
    hits = 0
    for index, vector in enumerate(embedded):
        similarity = texts[professions[index]] @ vector
        hits += similarity[right[index]] > similarity[wrong[index]].max()
    return {"right caption of 20": hits / count}


def sheet(model: str) -> Image.Image:
    """Eight images of every prompt, one row each, seeds 0 to 7."""
    pipe = load_pipeline(model, "auto")
    settings = defaults(pipe, model)
    prompts = (world_of(model) or _PORTRAITS).prompts
    rows = (generate_images(pipe, prompt, range(8), settings, 8) for prompt in prompts)
    return image_grid([image for row in rows for images in row for image in images], columns=8, gap=2)


def write_card(
    folder: Path, model: str, about: str, result: dict[str, Any], origin: str = OWN_ORIGIN, license: str = "apache-2.0"
) -> None:
    """Writes README.md with the texts `about` and `origin` and the summary, quality.json with all results, and
    images.png; prints the summary.

    `result` comes from `measure`, optionally merged with the result of `measure_readers`.
    """
    (folder / "quality.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sheet(model).save(folder / "images.png", optimize=True)
    settings, n = result["settings"], result["n_images"]
    low = 1 - rate_interval(n, n).low
    lines = [
        *("---", f"license: {license}", "---", ""),
        f"# {model}: a bundled model of raigen",
        "",
        f"{about} {origin}",
        "",
        "![images of the ten prompts, one row each](images.png)",
        "",
        f"Measured by the judge on {n} images per prompt ({settings['num_inference_steps']} steps, guidance "
        f"{settings['guidance_scale']:g}); a rate of 0 of {n} means at most {low:.2%} at 95 %. Named attributes: "
        f"{result['n_named']} images each.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {name} | {share:.1%} |" for name, share in result["summary"].items()),
        *(readers_lines(result) if "judge" in result else ()),
        "",
        "All rates, planted and seen, are in `quality.json`.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    for name, share in result["summary"].items():
        print(f"{name}: {share:.3f}")


def readers_lines(result: dict[str, Any]) -> list[str]:
    """The rows of the card with the results of `measure_readers`."""

    def worst(what: str, key: str) -> list[str]:
        lowest = {name: min(entry[key].items(), key=lambda each: each[1]) for name, entry in result["judge"].items()}
        return [f"| {what.format(name)} | {share:.1%} ({value}) |" for name, (value, share) in lowest.items()]

    return [
        f"| CLIP: right caption among 20 | {result['clip']['right caption of 20']:.1%} |",
        *worst("judge on held-out images, {}: worst field", "fields"),
        *worst("judge, {}: worst balanced accuracy of a value", "balanced"),
        *(f"| called unreadable: {kind} | {share:.1%} |" for kind, share in result["unreadable"].items()),
    ]
