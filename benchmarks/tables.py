"""Prints the tables of README and findings from what is stored: `python -m benchmarks.tables`.

It measures nothing. It reads the values of every prompt in `benchmarks/results`, writes summaries and figures of these
files anew, and prints the tables. A test compares the tables with the pages.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks.common.intervals import Summary, shown, with_nan
from benchmarks.common.results import HELD_OUT, RESULTS, differences, read_rows, summary, table
from benchmarks.common.world import WORLD
from benchmarks.discovery import ablations, misses, planted_truth, shared_sae, suppression

Rows = Sequence[dict]
OURS = "coherent, no limit"  # the default score, with a list as long as the others
FIRST_TEN = {
    OURS: "**raigen**, the list not ended",
    "published": "published score",
    "published, ten images": "the same, neurons that fire in ten images",
    "plain BatchTopK": "the same again, plain BatchTopK autoencoder",
    "ICA of looks": "ICA of small thumbnails, no model",
    "random order": "neurons in random order",
    "told the truth": "*a linear probe that is told the truth*",
}
LISTS = ("precision@10", "recall@20", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed", "redundancy",
         "rate correlation")  # fmt: skip
SHARED = ("precision@10", "recall@20", "recall@20 in 0.5-1 %", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "redundancy")
ON_TRANSFORMER = ("coherent", "coherent, to 5 %", "coherent, to 10 %", "published, ten images", "ICA of looks",
                  "told the truth")  # fmt: skip
LOOKING = ("listed", "truly rare", "found, .1-.8 %", "found, .8-2 %", "found, 2-5 %",
           "right name, of rare ones with a label")  # fmt: skip
UNKNOWN = {"mean": float("nan"), "n": 0}


def named(result: Summary, names: Mapping[str, str]) -> Summary:
    """Some rows, by other names."""
    return {new: result[old] for old, new in names.items()}


def of_curve(rows: Rows, curve: str) -> list[dict]:
    """The rows of a curve of the ablations, by the place on the curve."""
    return [row | {"arm": row["arm"][len(curve) + 2 :]} for row in rows if row["arm"].startswith(f"{curve}: ")]


def over_prompts(rows: Rows) -> Summary:
    """The means of all rows, with intervals over prompts."""
    return summary(rows, {row["prompt"] for row in rows}, "prompts")


def first_ten(rows: Rows) -> str:
    """The first ten neurons of each list, and how the other lists differ from ours."""
    means, gaps = over_prompts(rows), differences(rows, OURS)
    both = {
        arm: {
            "truly rare": means[arm]["precision@10"], "found": means[arm]["recall@10"],
            "truly rare, less raigen's": gaps.get(arm, {}).get("precision@10", UNKNOWN),
            "found, less raigen's": gaps.get(arm, {}).get("recall@10", UNKNOWN),
        }
        for arm in FIRST_TEN
    }  # fmt: skip
    return table(named(both, FIRST_TEN), tuple(both[OURS]), "first ten of the list")


def by_choice(rows: Rows) -> str:
    """The default list, apart for what was chosen on and what was not."""
    parts = {}
    for of, prompts in (("chosen on", WORLD.chosen_on), ("held out", HELD_OUT)):
        for seeds, is_first in (("seed 0", True), ("other seeds", False)):
            part = [row for row in rows if (row["generation_seed"] == "0") == is_first]
            parts[f"{of}, {seeds}"] = summary(part, prompts, "prompts")["coherent"]
    return table(parts, ("precision@10", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed"), "prompts")


def views(rows: Rows) -> str:
    """What one view alone changes."""
    gaps = differences(rows, "coherent")
    names = {f"coherent, {name} alone": f"{name} alone, less both" for name in ("CLIP", "looks")}
    return table(named(gaps, names), LISTS[:4], "views")


def arms(rows: Rows, prompts: Iterable[str]) -> str:
    """Every arm, on some prompts."""
    return table(summary(rows, prompts, "prompts"), LISTS)


def two_models(rows: Rows, transformer: Rows) -> str:
    """The second bundled model beside the first, on the same prompts and seed."""
    prompts = {row["prompt"] for row in transformer}
    first = [row for row in rows if row["prompt"] in prompts and row["generation_seed"] == "0"]
    both = {"transformer": over_prompts(transformer), "U-Net": over_prompts(first)}
    found = {
        arm: {f"{model}: {name}": means[arm][name] for model, means in both.items()
              for name in ("precision@10", "recall@20", "listed")}
        for arm in ON_TRANSFORMER
    }  # fmt: skip
    return table(found, tuple(found["coherent"]))


def images(rows: Rows) -> str:
    """How many images an audit needs."""
    names = {str(n): f"{n:,}" for n in (100, 300, 1000, 5000)}
    names |= {f"{n}, published": f"{n:,}, by the published score" for n in (1000, 5000)}
    return table(named(over_prompts(of_curve(rows, "number of images")), names), LISTS[:5], "images")


def against(rows: Rows, curve: str, base: str, measures: Sequence[str]) -> str:
    """A curve of the ablations, then its differences to one of its places."""
    part = of_curve(rows, curve)
    gaps = {f"{place}, less {base}": found for place, found in differences(part, base).items()}
    return table(over_prompts(part) | gaps, measures, curve)


def looking(name: str) -> str:
    """Lists with and without a look around odd images, on the prompts that nothing was chosen on."""
    summary = with_nan(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))["summary"]
    return table({arm: by_group["reported"] for arm, by_group in summary.items()}, LOOKING, "arm")


def paper() -> str:
    """The paper's tables as `benchmarks.paper` made them here, beside the published figures."""
    lines = ["| table | row | measure | here | the paper |", "|---" * 5 + "|"]
    for path in sorted(RESULTS.glob("paper_table_*.json"), key=lambda path: int(path.stem.rpartition("_")[2])):
        made = with_nan(json.loads(path.read_text(encoding="utf-8")))
        for row, measures in made["ours"].items():
            for name, value in measures.items():
                published = made["published"].get(row, {}).get(name)
                theirs = "-" if published is None else f"{published:.3g}".removeprefix("0")
                lines.append(f"| {made['table']} | {row} | {name.replace('|', 'given')} | {shown(value)} | {theirs} |")
    return "\n".join(lines)


def is_plain(form: str) -> bool:
    """Whether a form of the shared autoencoder leaves the score as it is."""
    return not form.endswith((", frequent elsewhere first", ", frequent here first", ", rarer here only"))


def tables() -> Iterator[str]:
    """All tables, in the order of the pages."""
    rows, more = read_rows(RESULTS / "discovery.csv"), read_rows(RESULTS / "ablations.csv")
    missed = with_nan(json.loads((RESULTS / "misses.json").read_text(encoding="utf-8")))
    yield from (first_ten(rows), by_choice(rows), views(rows))
    yield table(missed["shares"], tuple(misses.COUNTED), "list")
    yield table(missed["rare values by place"], [str(place) for place in range(1, 9)], "place")
    yield from (arms(rows, WORLD.prompts), arms(rows, HELD_OUT))
    yield against(more, "stream", "store", (*LISTS[:5], "matched AP"))
    yield images(more)
    yield against(more, "input", "as it is", (*LISTS[:4], "matched AP", "silent neurons"))
    for name in ("shared_sae", "shared_sae_four"):
        found = [row for row in read_rows(RESULTS / f"{name}.csv") if name == "shared_sae" or is_plain(row["arm"])]
        gaps = {f"{form}, less {shared_sae.APART}": gap for form, gap in differences(found, shared_sae.APART).items()}
        yield table(over_prompts(found) | gaps, SHARED, "form")
    yield two_models(rows, read_rows(RESULTS / "discovery_transformer.csv"))
    yield from (looking("looking"), looking("looking_emblems"))


def main() -> None:
    """Writes the summaries and figures anew, and prints the tables."""
    for name, options in (("discovery", planted_truth.Options()),
                          ("discovery_transformer", planted_truth.Options(generation_seeds=1))):  # fmt: skip
        rows = read_rows(RESULTS / f"{name}.csv")
        prompts = tuple(dict.fromkeys(row["prompt"] for row in rows))
        planted_truth.write_results(replace(options, name=name, prompts=prompts), rows)
    for name in ("shared_sae", "shared_sae_four"):
        costs = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["processor seconds of training"]
        rows = read_rows(RESULTS / f"{name}.csv")
        prompts = tuple(dict.fromkeys(row["prompt"] for row in rows))
        shared_sae.write_results(shared_sae.Options(name=name, prompts=prompts), rows, costs)
    ablations.write_results(RESULTS, read_rows(RESULTS / "ablations.csv"))
    suppression.write_results(RESULTS, suppression.read_rows(RESULTS / "suppression.csv"))
    print(*tables(), paper(), sep="\n\n")


if __name__ == "__main__":
    main()
