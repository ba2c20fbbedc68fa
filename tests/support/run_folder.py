"""A run folder as the stages leave it, with drawn portraits and made-up numbers, and a browser to look at its pages."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from raigen.config import STAGES, CaptureConfig, ReportConfig, TrainConfig
from raigen.judging.presence_table import table
from raigen.judging.rates import ratio_of
from raigen.report.report import report
from raigen.runs.files import sha256, write_tensors, write_text
from raigen.runs.records import Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.world.attributes import BY_NAME
from raigen.world.draw import draw
from raigen.world.planted import rates, sample_attributes, visible

PROMPT = "a photo of a doctor"
HOSTILE = "<script>alert(1)</script>"
N_TOP = 10
EXACT = "95 % Clopper-Pearson"
SHOWN = ("turban", "snow", "cat", "black and white", "headscarf", "pink hair", "flower", "left of frame", "field",
         "waving")  # fmt: skip
CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def _finish(run: Run, stage: str, config: Any, facts: dict[str, Any], outputs: list[Path]) -> None:
    run.begin(stage, config)
    run.finish(stage, Outcome(outputs, facts), 12.3 + 40 * STAGES.index(stage))


@cache
def portrait(index: int, name: str | None) -> bytes:
    rng = np.random.default_rng(index)
    attributes = sample_attributes(PROMPT, rng)
    if name is not None:
        attributes = visible(replace(attributes, headwear="no headwear", held="empty hands"))
        attributes = visible(replace(attributes, **{BY_NAME[name].field: name}))
    buffer = io.BytesIO()
    draw(attributes, rng).save(buffer, "PNG")
    return buffer.getvalue()


def save(run: Run, sample: Sample, data: bytes) -> Sample:
    (run.dir / sample.file).parent.mkdir(exist_ok=True)
    (run.dir / sample.file).write_bytes(data)
    return sample._replace(sha256=sha256(data))


def _capture(run: Run, config: CaptureConfig, values: tuple[str, ...]) -> list[Sample]:
    """Draws the images; image i < N_TOP * len(values) shows the value i // N_TOP."""
    samples = []
    for index in range(config.n_images):
        data = portrait(index, values[index // N_TOP] if index < N_TOP * len(values) else None)
        samples.append(
            save(run, Sample(index, config.prompt, config.base_seed + index, f"images/{index:05d}.png", ""), data)
        )
    write_text(run.samples_path, "".join(json.dumps(sample._asdict()) + "\n" for sample in samples))
    facts = {"model_id": "raigen/portraits", "scheduler": "DDIMScheduler", "num_inference_steps": 20,
             "guidance_scale": 1.0, "hookpoint": "unet.mid_block", "d_in": 192}  # fmt: skip
    _finish(run, "capture", config, facts, [run.samples_path])
    return samples


def _attribute(rank: int, top: list[Sample], stage: str) -> RareAttribute:
    rng = np.random.default_rng(rank)
    attribute = RareAttribute(rank, 17 * rank + 4, 0.93 - 0.031 * rank, 0.004 * (rank + 1) ** 1.3,
                              0.41 - 0.02 * rank + rng.uniform(0, 0.06), tuple(s.file for s in top))  # fmt: skip
    if stage == "discover":
        return attribute
    if rank in (4, 8):
        return replace(attribute, label_auroc=0.71)
    name = HOSTILE if rank == 2 else BY_NAME[SHOWN[rank - 1]].phrase
    hits = (2, 1, 0, 0, 9, 2, 7, 21, 4, 3)[rank - 1]
    n = 300 - (rank == 5) * 4
    low, high = binomtest(hits, n).proportion_ci(0.95)
    presence = Presence(hits / n, float(low), float(high), hits, n, 300 - n, "portraits judge", EXACT)
    low, high = binomtest(6, 10).proportion_ci(0.95)
    suggested = Presence(0.6, float(low), float(high), 6, 10, 0, "portraits judge", EXACT)
    return replace(
        attribute, label=name, keywords=("cloth", "head", name), suggested_prompt=f"{PROMPT}, {name}",
        label_auroc=0.99 - 0.01 * rank, labeled_by="CLIP", presence=presence, suggested=suggested,
        ratio=ratio_of(suggested, presence, 0.95),
    )  # fmt: skip


def _discover(run: Run, samples: list[Sample], n_attributes: int, until: str) -> list[RareAttribute]:
    attributes = [_attribute(r, samples[N_TOP * (r - 1) : N_TOP * r], until) for r in range(1, n_attributes + 1)]
    write_text(run.attributes_path, json.dumps([asdict(a) for a in attributes]))
    rng = np.random.default_rng(0)
    rows = {i: (float(f), float(d)) for i, (f, d) in enumerate(zip(rng.beta(0.5, 1.2, 300), rng.gamma(2, 0.04, 300)))}  # noqa: B905
    rows |= {a.neuron: (a.frequency, a.distinctiveness) for a in attributes}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["neuron", "frequency", "distinctiveness", "minority_score", "listed", "left_out"])
    listed = {a.neuron for a in attributes}
    for index, (frequency, far) in rows.items():
        why = "" if index in listed else f"like neuron {index % 7}" if index < 9 else "stands out too little"
        table.writerow([index, max(frequency, 0.002), far, 0.5, int(index in listed), why])
    table.writerow([300, 0.003, "", "", 0, "fires in fewer than 10 pictures"])
    table.writerow([301, 0, "", "", 0, "never fires"])
    write_text(run.neurons_path, text.getvalue())
    _codes(run, samples, attributes)
    _kin(run, attributes)
    y, x = np.mgrid[0:8, 0:8]
    centers = [(1.5, 4), (2, 1), (5.5, 1.5), (4, 4), (3, 4), (1.5, 3.5), (4.8, 1.4), (3, 1.2), (2, 6), (3.6, 6.8)]
    maps = np.zeros((n_attributes, N_TOP, 8, 8), np.float32)
    for j in range(n_attributes):
        for i in range(N_TOP):
            blob = 4 * 0.93**i * np.exp(-((y - centers[j][0]) ** 2 + (x - centers[j][1]) ** 2) / 2.4)
            maps[j, i] = np.where(blob > 0.5, blob, 0)
    write_tensors(run.heatmaps_path, {"heatmaps": torch.from_numpy(maps)})
    _finish(run, "train", TrainConfig(), {"d_sae": 3072, "group_sizes": [307, 2765], "fvu": 0.08123, "l0": 11.9,
            "n_dead": 1}, [])  # fmt: skip
    _finish(run, "discover", run.config.discover, {"embedder": "portraits-clip", "n_kept": 14}, [])
    return attributes


def _kin(run: Run, attributes: list[RareAttribute]) -> None:
    """Four fine neurons within the first listed one, one within the second; none elsewhere."""
    lines = [
        {"neuron": a.neuron, "parent": a.neuron, "child": 400 + n, "frequency": 0.1 - 0.01 * n, "within": 0.9,
         "covers": 0.4, "lift": 5.4, "q": 0.001, "top_images": a.top_images[n : n + 6]}
        for a in attributes[:2] for n in ((1,) if a.rank == 2 else range(4))
    ]  # fmt: skip
    write_text(run.kin_path, "".join(json.dumps(line) + "\n" for line in lines))


def _codes(run: Run, samples: list[Sample], attributes: list[RareAttribute]) -> None:
    """Codes and embeddings: a listed neuron fires from 1 down on its top images, and below 0.5 on sixteen more."""
    rng = np.random.default_rng(1)
    codes = np.where(rng.random((len(samples), 302)) < 0.3, rng.random((len(samples), 302)), 0)
    codes[0, :300] += 0.01
    codes[:, 300:] = 0
    index_of = {sample.file: sample.index for sample in samples}
    for a in attributes:
        top = [index_of[file] for file in a.top_images]
        others = [(top[-1] + 1 + step) % len(samples) for step in range(16)]
        codes[:, a.neuron] = 0
        codes[top, a.neuron], codes[others, a.neuron] = np.linspace(1, 0.6, N_TOP), np.linspace(0.5, 0.2, 16)
    embeddings = rng.normal(size=(len(samples), 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    write_tensors(run.codes_path, {"image_codes": torch.from_numpy(codes.astype(np.float32))})
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(embeddings.astype(np.float32))})


def write_truth(run: Run, attributes: list[RareAttribute]) -> None:
    planted = rates(PROMPT)
    entries = [{"neuron": a.neuron, "value": SHOWN[a.rank - 1], "share": 1.0, "rate": planted[SHOWN[a.rank - 1]],
                "hit": True} for a in attributes]  # fmt: skip
    entries[-1] |= {"value": None, "share": 0.3, "rate": None, "hit": False}
    recall = [{"band": "0.5 %", "planted": 2, "found": 1}, {"band": "1 %", "planted": 3, "found": 3},
              {"band": "2 %", "planted": 5, "found": 4}, {"band": "5 %", "planted": 2, "found": 1}]  # fmt: skip
    write_text(run.truth_path, json.dumps({"values": planted, "attributes": entries, "recall": recall,
               "n_hits": len(entries) - 1}))  # fmt: skip


def _judged(run: Run, samples: list[Sample], attributes: list[RareAttribute]) -> None:
    """Fresh images, of which the judge sees each attribute in the first few; the labels' scores; presence.csv."""
    fresh = [
        save(
            run,
            Sample(i, PROMPT, 10**9 + i, f"fresh/{i:06d}.png", ""),
            portrait(1000 + i, SHOWN[0] if i < 2 else None),
        )
        for i in range(24)
    ]
    write_text(run.fresh_samples_path, "".join(json.dumps(sample._asdict()) + "\n" for sample in fresh))
    measured = [a for a in attributes if a.presence]
    lines = [
        {"file": s.file, "seed": s.seed, "neuron": a.neuron, "label": a.label, "judge": a.presence.judge,
         "shows": None if i == 23 else i < a.presence.hits, "confidence": 0.9}
        for a in measured for i, s in enumerate(fresh)
    ]  # fmt: skip
    write_text(run.judgements_path, "".join(json.dumps(line) + "\n" for line in lines))
    write_text(run.presence_path, table(attributes))
    scores = [
        {"neuron": a.neuron, "label": a.label, "clarity": 0.61, "redundancy": 0.72, "polysemanticity": 0.13}
        | ({"why_not": "it has no label"} if a.label is None else {
            "why_not": None, "judge": "portraits judge", "n_unscored": 1, "hits": 9, "n_active": 11, "false_hits": 1,
            "n_silent": 12, "balanced_accuracy": 0.86, "accuracy_interval": [0.7, 0.95, "MOVER"], "auroc": 0.9,
            "auroc_interval": [0.77, 0.97, "Newcombe"],
            "shuffled": {"neuron": 55, "judge": "portraits judge", "why_not": None, "n_unscored": 1, "hits": 4,
                         "n_active": 11, "false_hits": 5, "n_silent": 12, "balanced_accuracy": 0.47,
                         "accuracy_interval": [0.3, 0.6, "MOVER"], "auroc": 0.45,
                         "auroc_interval": [0.24, 0.68, "Newcombe"]},
            "pictures": [{"file": samples[(40 + i) % len(samples)].file, "group": "active" if i < 6 else "hard",
                          "shows": None if i == 5 else i != 4} for i in range(9)]})
        for a in attributes
    ]  # fmt: skip
    write_text(run.label_scores_path, "".join(json.dumps(line) + "\n" for line in scores))


def make_run(dir: Path, n_attributes: int = 4, n_images: int = 60, until: str = "evaluate") -> Run:
    """A run in `dir` as it stands after the stage `until` (`discover` or `evaluate`)."""
    run = Run.create(dir)
    config = CaptureConfig(PROMPT, n_images=n_images, base_seed=5000)
    samples = _capture(run, config, SHOWN[:n_attributes])
    attributes = _discover(run, samples, n_attributes, until)
    if until == "evaluate":
        _finish(run, "annotate", run.config.annotate, {"labeled_by": "CLIP", "n_named": n_attributes - 1}, [])
        _finish(
            run,
            "evaluate",
            run.config.evaluate,
            {"judge": "portraits judge", "n_unscored": {"portraits judge: the image cannot be read": 4}},
            [],
        )
        write_truth(run, attributes)
        _judged(run, samples, attributes)
    return run


def on_device(run: Run, device: str) -> Run:
    """The run as if it had been captured on `device`; its other records stay."""
    path = run.dir / "run.json"
    text = path.read_text()
    assert '"device": "auto"' in text
    path.write_text(text.replace('"device": "auto"', f'"device": "{device}"', 1))
    return Run(run.dir)


def write(run: Run, config: ReportConfig = ReportConfig()) -> Outcome:  # noqa: B008
    run.begin("report", config)
    ticks = report(run, config)
    while True:
        try:
            next(ticks)
        except StopIteration as end:
            run.finish("report", end.value, 0.1)
            return end.value


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    for program in (CHROMIUM, CHROMEDRIVER):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; install it with: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
             "disable-sync", "no-first-run", f"user-data-dir={tmp_path_factory.mktemp('profile')}"]  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path_factory.mktemp("downloads"))})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


def view(browser: Chrome, width: int, height: int = 900, scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def text_of(run: Run) -> str:
    """The text of the page as a reader meets it: tags dropped, spaces folded."""
    body = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", run.report().read_text(), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", body)))
