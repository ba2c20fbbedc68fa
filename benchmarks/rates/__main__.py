"""How far can a rate be trusted? By simulated audits: `python -m benchmarks.rates`.

The judge of an audit errs: it misses images that show the attribute (Se) and sees it where it is not (Sp). Rates are
reported raw, calibrated with images whose answers are known, and checked by a person. For known rates, numbers of
images, judges and kinds of calibration images, the benchmark counts how often the 95 % interval holds the true rate,
and how far the rate is off.
"""

import json
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import tyro

from benchmarks.common.figures import coverage_figure
from benchmarks.common.results import RESULTS
from benchmarks.rates.simulated import KINDS, Judge, cell
from raigen.runs.files import write_text

JUDGES = (Judge(0.95, 0.999), Judge(0.9, 0.99), Judge(0.8, 0.95))


@dataclass(frozen=True)
class Options:
    """The benchmark of rates."""

    results: Path = RESULTS
    """Where rates.json and rates.svg go."""
    rates: tuple[float, ...] = field(default=(0.002, 0.005, 0.01, 0.02, 0.05))
    """True rates of the attribute."""
    n_images: tuple[int, ...] = field(default=(300, 1000, 5000))
    """Fresh images of an audit."""
    n_audits: int = 60
    """Simulated audits of each cell."""
    seed: int = 0
    """Seed of the simulation."""


def main(options: Options) -> None:
    """Simulates; prints, writes and draws the result."""
    rows = []
    for judge, n in product(JUDGES, options.n_images):
        start = len(rows)
        for (kind, images), rate in product(KINDS.items(), options.rates):
            rng = np.random.default_rng([options.seed, n, round(rate * 1e6), round(judge.specificity * 1e6)])
            about = {"sensitivity": judge.sensitivity, "specificity": judge.specificity, "n": n, "rate": rate}
            found = cell(rng, rate, n, judge, images, options.n_audits)
            rows += [about | {"calibration": kind} | row for row in found]
        print(f"Se {judge.sensitivity:g}, Sp {judge.specificity:g}, {n:,} images", flush=True)
        print("\n".join(_line(row) for row in rows[start:]), flush=True)
    settings = {name: value for name, value in asdict(options).items() if name != "results"}
    result = {"simulated": {"options": settings, "kinds": {k: v._asdict() for k, v in KINDS.items()}, "rows": rows}}
    write_text(options.results / "rates.json", json.dumps(result, indent=1) + "\n")
    coverage_figure(rows, options.results / "rates.svg")


def _line(row: dict) -> str:
    return (f"  {row['rate']:6.1%} {row['mode']:10} {row['calibration']:20} covers {row['coverage']:.3f}, "
            f"bias {row['bias']:+.2%}, width {row['width']:.2%}, told {row['told']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
