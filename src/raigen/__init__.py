"""Finds the attributes that a text-to-image model knows but hardly ever shows.

The rooms, in the order in which the data passes through them:

    diffusion       prompt -> images and activations        capture
    sae             activations -> autoencoder              train
    discovery       autoencoder -> listed neurons           discover
    judging         neurons -> names and rates              annotate, evaluate
    report          a run -> one page, tables, figures      report
    amplification   a neuron -> images that show it         amplify
    studio          a page to steer by hand                 launch
    comparison      runs -> what differs                    compare
    auditing        takes runs through the stages           audit, sweep
    cli             the command line                        main

They stand on `config` (every setting), `runs` (what lies on disk) and `world` (the planted world).

Names load when they are first used, so that `import raigen` is quick and loads neither torch nor diffusers.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from raigen import world
    from raigen.amplification.amplify import amplify
    from raigen.amplification.steering import steering
    from raigen.auditing.audit import audit
    from raigen.cli.progress import progress_bars
    from raigen.comparison.compare import compare
    from raigen.config import SAEConfig
    from raigen.discovery import scores
    from raigen.errors import RaigenError
    from raigen.runs.records import RareAttribute
    from raigen.runs.run import Run
    from raigen.runs.study import Study
    from raigen.sae import interchange, train
    from raigen.sae.model import MatryoshkaSAE

__version__ = version("raigen")
__all__ = [
    "MatryoshkaSAE",
    "RaigenError",
    "RareAttribute",
    "Run",
    "SAEConfig",
    "Study",
    "__version__",
    "amplify",
    "audit",
    "compare",
    "interchange",
    "progress_bars",
    "scores",
    "steering",
    "train",
    "world",
]
__getattr__, _names, _ = lazy_loader.attach(
    __name__,
    ["world"],
    {
        "amplification.amplify": ["amplify"],
        "amplification.steering": ["steering"],
        "auditing.audit": ["audit"],
        "cli.progress": ["progress_bars"],
        "comparison.compare": ["compare"],
        "config": ["SAEConfig"],
        "discovery": ["scores"],
        "errors": ["RaigenError"],
        "runs.records": ["RareAttribute"],
        "runs.run": ["Run"],
        "runs.study": ["Study"],
        "sae": ["interchange", "train"],
        "sae.model": ["MatryoshkaSAE"],
    },
)


def __dir__() -> list[str]:
    return __all__
