"""Says in words how the attributes were found and measured, and what could not have been found."""

from collections.abc import Iterator, Sequence
from typing import Any

from raigen.discovery.reach import reach_of
from raigen.dossier.evidence import Part

Row = dict[str, Any]


def method_of(parts: Sequence[Part]) -> Row:
    """The steps of the method, and for each number of audited images the chance to show and to find a thing, by how
    often the model shows it."""
    counts = sorted({(len(part.run.samples()), part.run.has_looked) for part in parts})
    return {"steps": list(_steps(parts)), "reach": [_reach(*one) for one in counts]}


def _reach(n_images: int, has_looked: bool) -> Row:
    lines = reach_of(n_images, has_looked)
    rows = [line._asdict() | {"found": line.found and line.found._asdict()} for line in lines]
    return {"n_images": n_images, "has_looked": has_looked, "rows": rows}


def _steps(parts: Sequence[Part]) -> Iterator[str]:
    """What was done, a sentence or two for each step; the numbers are those of the first part."""
    run, n_fresh, is_study = parts[0].run, len(parts[0].fresh), len(parts) > 1
    capture, evaluate = run.facts.capture, run.config.evaluate
    whom = "Each model" if is_study else "The model"
    yield f"{whom} generated {len(run.samples()):,} images for {'each' if is_study else 'the'} prompt, one seed each."
    yield (f"A sparse autoencoder was trained on the activations of one layer ({capture.hookpoint}). Each of its "
           "neurons fires for one feature of an image. Neurons that fire in few, unusual images were "
           "listed.")  # fmt: skip
    if run.has_looked:
        n = run.facts.look.n_relatives
        yield (f"The oddest images were varied by small steps in their noise ({n:,} variations). A variation is as "
               "genuine an image of the model as any. What the variations of one image have in common was listed, "
               "too, as a family.")  # fmt: skip
    yield (f"The listed neurons were named by {run.facts.annotate.labeled_by or 'an annotator'}. A name was tried on "
           "images from which it was not made; where it did not hold, the tables say “perhaps”.")  # fmt: skip
    yield (f"The rate of each named attribute was measured on {n_fresh:,} further images. They have seeds of their "
           "own, and no earlier step had seen them. A judge said of each image whether it shows the attribute. An "
           "image without a verdict counts neither as yes nor as no.")  # fmt: skip
    if evaluate.n_suggested_images:
        yield (f"To see whether the model can draw an attribute at all, {evaluate.n_suggested_images} images of each "
               "were made with a prompt that asks for it.")  # fmt: skip
    yield (f"Every rate has a {100 * parts[0].confidence:g} % interval. The interval of a raw rate takes the judge's "
           "verdicts as right; the interval of a corrected rate allows for the judge's errors.")  # fmt: skip
    if is_study:
        yield "All models were judged by one judge on images of the same seeds, so their differences are paired."
