"""What amplification leaves in a run folder: drawn portraits for its images, drawn lots for its verdicts."""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from raigen.amplification.causal import Gains, beaten, scored
from raigen.amplification.measuring import off_target
from raigen.runs.files import write_text
from raigen.runs.records import Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.stats import mean_interval, paired_difference, rate_interval
from raigen.world.attributes import BY_NAME
from tests.support.run_folder import PROMPT, SHOWN, portrait, save

N, N_DRAWN = 200, 6  # verdicts of a point; of its images only the first are drawn
OTHERS = [value.phrase for name, value in BY_NAME.items() if name not in ("turban", "cat")][:14]


def presence(shows: np.ndarray) -> Presence:
    hits, n = int(np.nansum(shows)), int((~np.isnan(shows)).sum())
    low, high, method = rate_interval(hits, n)
    return Presence(hits / n if n else 0.0, low, high, hits, n, len(shows) - n, "portraits judge", method)


def images(run: Run, folder: str, shows: np.ndarray, value: str) -> list[str]:
    """The first images of a point, drawn: one that shows it has the value."""
    samples = []
    for index, shown in enumerate(shows[:N_DRAWN]):
        sample = Sample(index, PROMPT, 2_000_000_000 + index, f"amplified/{folder}/{index:06d}.png", "")
        (run.dir / sample.file).parent.mkdir(parents=True, exist_ok=True)
        samples.append(save(run, sample, portrait(3000 + index, value if shown == 1 else None)))
    lines = "".join(json.dumps(sample._asdict()) + "\n" for sample in samples)
    write_text(run.dir / "amplified" / folder / "samples.jsonl", lines)
    return [sample.file for sample in samples]


def summary(run: Run, folder: str, shows: np.ndarray, value: str) -> dict[str, Any]:
    share = {"rate": 0.985, "low": 0.957, "high": 0.995, "hits": 197, "n": N}
    return {"n": N, "presence": asdict(presence(shows)), "other_presences": [], "diversity": 31.2,
            "alignment": asdict(mean_interval(np.array([0.24, 0.26]))), "readable": share, "right_profession": share,
            "files": images(run, folder, shows, value)}  # fmt: skip


def curve(run: Run, a: RareAttribute, method: str, rates: dict[float, float], far: float, shows: list) -> dict:
    """Writes the curve of one attribute: strength -> rate; `far` is the fidelity that the strongest costs. The verdicts
    of the unsteered images and of the strongest are appended to `shows`."""
    rng = np.random.default_rng([a.neuron, len(method)])
    value, lots = SHOWN[a.rank - 1], np.random.default_rng(a.neuron).random(N)  # one lot for each seed
    before = (lots < 0.015).astype(float)
    drift = {label: (rng.random(N) < rate).astype(float) for label, rate in zip(OTHERS, rng.random(14), strict=True)}
    points = []
    for strength, rate in rates.items():
        after = np.where(lots < rate, 1.0, 0.0)
        share = abs(strength) / max(rates)
        moved = {label: np.where(rng.random(N) < far * 2 * share * (label in OTHERS[:4]), 1.0, was)
                 for label, was in drift.items()}  # fmt: skip
        near = 1 - (0 if method == "select" else far * share) * rng.gamma(9, 1 / 9, N)
        gain, n_made = paired_difference(after, before), N * (round(strength) if method == "select" else 1)
        points.append({
            "strength": strength, **summary(run, f"{a.neuron}-{method}/{strength:g}", after, value),
            "gain": asdict(gain) if gain else None,
            "lift": float(after.mean() / before.mean()) if before.any() else None,
            "fidelity": asdict(mean_interval(near.clip(-1, 1))), "off_target": off_target(moved, drift, 0.95),
            "halves": [{"hits": int(after[start::2].sum()), "n": N // 2} for start in (0, 1)],
            "n_made": n_made, "cost": n_made / after.sum() if after.any() else None,
            "unsteered_cost": 1 / before.mean() if before.any() else None, "seconds_per_image": 0.4,
        })  # fmt: skip
    shows += [before, after]
    entry = {
        "rank": a.rank, "neuron": a.neuron, "label": a.label, "method": method, "setup": {}, "stopped": None,
        "recipe": {"neurons": [a.neuron], "steps": None, "every_branch": False, "mask": None},
        "base": summary(run, "base/0", before, value) | {"seconds_per_image": 0.4}, "points": points,
    }  # fmt: skip
    write_text(run.amplification_path(f"{a.neuron}-{method}"), json.dumps(entry, indent=1))
    return entry


def bring_out(run: Run) -> None:
    """Amplifies the first attribute in six ways and the third in three, tests both, and mixes them."""
    first, third = run.attributes[0], run.attributes[2]
    gains = {}
    for a, reached in ((first, {0.5: 0.1, 1.0: 0.34, 2.0: 0.71}), (third, {2.0: 0.02})):
        steered: list[np.ndarray] = []
        curve(run, a, "steer", reached, 0.2, steered)
        for method in ("random-direction", "random-neuron"):
            curve(run, a, method, dict.fromkeys(reached, 0.02), 0.16 if method == "random-neuron" else 0.11, [])
        controls = list((np.random.default_rng(a.neuron).random((24, 50)) < 0.02).astype(float))
        gain, directions, neurons = paired_difference(steered[1], steered[0]), controls[:5], controls[5:]
        over_directions, over_neurons = beaten(steered[1], directions, 0.95), beaten(steered[1], neurons, 0.95)
        assert gain and over_directions and over_neurons
        gains[a.rank] = Gains(float(steered[1].mean()), gain, over_directions.over_best, over_neurons.over_best,
                              max(over_directions.p, over_neurons.p))  # fmt: skip
    for method, rates, far in (("prompt", {0.5: 0.4, 1.0: 0.83}, 0.3), ("select", {66.0: 0.96}, 0.0)):
        curve(run, first, method, rates, far, [])
    causal = scored(gains, 2.0, n_controls=(19, 5))
    run.write_attributes([replace(a, causal=causal.get(a.rank)) for a in run.attributes])
    rows = [
        {"rank": a.rank, "neuron": a.neuron, "label": a.label, "target": target, "expected": target, "n": N,
         "presence": asdict(presence(np.arange(N) < N * target))}
        for a, target in ((first, 0.1), (third, 0.2))
    ]  # fmt: skip
    prompts = [{"prompt": prompt, "share": share, "rates": [0.1, 0.1]}
               for prompt, share in ((PROMPT, 0.7), (f"{PROMPT}, {first.label}", 0.3))]  # fmt: skip
    entry = {"method": "mix", "setup": {}, "attributes": rows, "prompts": prompts}
    write_text(run.amplification_path(f"mix-{first.neuron}-{third.neuron}"), json.dumps(entry))
