"""What does it cost to judge only some of the fresh images? By simulated audits: `python -m benchmarks.rates.sampled`.

Each audit has a likeness for each image: normal, and `shift` higher for images that show the attribute, but for a share
`stray` of them that look like all others. The judge errs by its sensitivity and specificity. The images to judge are
drawn by the likeness, as `raigen.judging.sampling` draws them. The benchmark counts how often the interval holds the
share of all images to which the judge would say yes (`coverage`), how often the interval that is calibrated with images
of known answers holds the true rate (`calibrated`), and how many images, drawn with equal chances, would give an
interval as narrow (`worth`).
"""

import json
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from scipy.stats import rankdata

from benchmarks.common.results import RESULTS
from benchmarks.rates.simulated import Judge
from raigen.judging.calibration import calibrated
from raigen.judging.posterior import Calibration
from raigen.judging.protocol import Verdicts
from raigen.judging.rates import presence_of
from raigen.judging.weighted_rates import chances_of, drawn
from raigen.runs.files import write_text
from raigen.stats import rate_interval


class Likeness(NamedTuple):
    """How well the likeness tells images that show the attribute from others."""

    shift: float
    stray: float


LIKENESSES = (Likeness(4, 0), Likeness(3, 0), Likeness(2, 0), Likeness(3, 0.2), Likeness(0, 0))
JUDGES = (Judge(1.0, 1.0), Judge(0.95, 0.999), Judge(0.9, 0.99))
KNOWN = 50, 200  # images with known answers that show the attribute, and that do not


@dataclass(frozen=True)
class Options:
    """The benchmark of sampled judgements."""

    results: Path = RESULTS
    """Where sampled_rates.json goes."""
    rates: tuple[float, ...] = field(default=(0.002, 0.005, 0.01, 0.02, 0.05))
    """True rates of the attribute."""
    n_images: int = 1000
    """Fresh images of an audit."""
    n_judged: int = 100
    """How many of them are judged."""
    n_audits: int = 200
    """Simulated audits of each cell."""
    n_calibrated: int = 40
    """In how many of them the rate is calibrated, which takes longer."""
    seed: int = 0
    """Seed of the simulation."""


def cell(rng: np.random.Generator, rate: float, likeness: Likeness, judge: Judge, options: Options) -> dict[str, float]:
    """What many audits find."""
    asked = rate * judge.sensitivity + (1 - rate) * (1 - judge.specificity)
    found, held, corrected = [], 0, 0
    n_corrected = min(options.n_calibrated, options.n_audits)
    for number in range(options.n_audits):
        shows = rng.random(options.n_images) < rate
        lifted = shows & (rng.random(options.n_images) >= likeness.stray)
        score = rng.normal(size=options.n_images) + likeness.shift * lifted
        says = np.where(shows, rng.random(len(shows)) < judge.sensitivity, rng.random(len(shows)) >= judge.specificity)
        chances = chances_of(1 / rankdata(-score), options.n_judged)
        chances = chances * drawn(chances, rng)
        verdicts = np.where(chances > 0, says.astype(float), np.nan)
        presence = presence_of(Verdicts("simulated", verdicts, verdicts, chances=chances), 0.95)
        held += presence.low <= asked <= presence.high
        found.append((presence.rate, presence.high - presence.low))
        if number >= n_corrected:
            continue
        known = Calibration(int(rng.binomial(KNOWN[0], judge.sensitivity)), KNOWN[0],
                            int(rng.binomial(KNOWN[1], judge.specificity)), KNOWN[1])  # fmt: skip
        better = calibrated(presence, known, 0.95)
        corrected += better is not None and better.low <= rate <= better.high
    low, high, _ = rate_interval(held, options.n_audits)
    rates, widths = np.array(found).T
    return {
        "coverage": held / options.n_audits, "coverage low": low, "coverage high": high,
        "calibrated": corrected / n_corrected, "bias": float(rates.mean() - asked),
        "bias error": float(rates.std() / np.sqrt(options.n_audits)), "width": float(widths.mean()),
        "worth": equal_images(asked, float(widths.mean())),
    }  # fmt: skip


def equal_images(rate: float, width: float) -> int:
    """How many images drawn with equal chances have, at their expected number of hits, an interval as narrow."""
    for n in np.unique(np.geomspace(20, 50_000, 400).round().astype(int)).tolist():
        interval = rate_interval(round(rate * n), n)
        if interval.high - interval.low <= width:
            return n
    return 50_000


def main(options: Options) -> None:
    """Simulates, prints and writes."""
    rows = []
    for likeness, judge, rate in product(LIKENESSES, JUDGES, options.rates):
        rng = np.random.default_rng([options.seed, round(rate * 1e6), round(judge.specificity * 1e6)])
        row = {**likeness._asdict(), **judge._asdict(), "rate": rate, **cell(rng, rate, likeness, judge, options)}
        rows.append(row)
        print(f"shift {row['shift']} stray {row['stray']:.1f} Se {row['sensitivity']:g} Sp {row['specificity']:g} "
              f"{rate:5.1%}: covers {row['coverage']:.3f}, calibrated {row['calibrated']:.3f}, "
              f"bias {row['bias']:+.3%}, width {row['width']:.2%}, worth {row['worth']}", flush=True)  # fmt: skip
    settings = {name: value for name, value in asdict(options).items() if name != "results"}
    write_text(options.results / "sampled_rates.json", json.dumps({"options": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
