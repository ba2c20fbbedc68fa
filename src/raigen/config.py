"""The configuration of every stage: the Python API, the command line and the saved JSON are these dataclasses."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from raigen.address import KINDS, address_of
from raigen.errors import RaigenError

DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
MIN_IMAGES = 50  # fewer cannot show a rare attribute even twice


def _need(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RaigenError(f"{name}: expected {expected}; got {value!r}")


def _need_address(name: str, text: str, others: tuple[str, ...]) -> None:
    if text not in others:
        address_of(text, name, others)


def _detail(default: Any) -> Any:
    """A field that changes how a stage runs but not what comes out, so a run may be resumed with another value."""
    return field(default=default, metadata={"identity": False})


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """By which means a pipeline is loaded."""

    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; None takes its main branch. The commit found is recorded."""
    variant: str | None = None
    """Of several files of weights those with this suffix, such as `fp16`; None takes the plain ones."""
    dtype: str = "auto"
    """Of the weights: `auto` (bfloat16 on a GPU, float32 on a CPU), `float32`, `bfloat16` or `float16`."""
    tiling: bool = False
    """Decodes pictures in overlapping tiles: needs less memory for large ones, changes them slightly."""
    offload: str = _detail("none")
    """For a GPU too small for the whole pipeline: `model` keeps one part on it at a time, `sequential` one layer,
    which is far slower; `none` keeps all."""
    offline: bool = _detail(False)
    """Takes a model of the Hub from the local cache only."""

    def __post_init__(self) -> None:
        _need(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        _need(self.offload in OFFLOADS, "offload", self.offload, f"one of {', '.join(OFFLOADS)}")


@dataclass(frozen=True)
class CaptureConfig(LoadConfig):
    """Which pictures are made, and where the denoiser is looked into."""

    prompt: str
    """The prompt to audit; not empty."""
    model: str = "portraits"
    """`portraits` (bundled), a folder with a diffusers pipeline, or an id on the Hub."""
    n_images: int = 1000
    """Pictures to generate, at least 50. The rarest rate that shows ten examples is about 16 / n_images."""
    base_seed: int = 0
    """Picture i has the seed base_seed + i; at least 0."""
    num_inference_steps: int | None = None
    """Denoising steps; None takes the model's own default."""
    guidance_scale: float | None = None
    """Classifier-free guidance; None takes the model's own default."""
    negative_prompt: str | None = None
    """What guidance leads away from; None takes the model's own default, mostly the empty text."""
    true_cfg_scale: float | None = None
    """Classifier-free guidance of models whose guidance_scale is another thing (Qwen-Image, FLUX); they need a
    negative_prompt, which may be a space. None takes the model's own default."""
    height: int | None = None
    """Pixels; None takes the model's own default."""
    width: int | None = None
    """Pixels; None takes the model's own default."""
    hookpoint: str | None = None
    """Dotted path of the module whose output is captured, one of `raigen hookpoints MODEL` or any other; None takes
    `unet.mid_block` or a block in the middle of the transformer."""
    store: bool = False
    """Keep the activations of all denoising steps on disk, to train many autoencoders on them. Otherwise the
    autoencoder is trained while the pictures are made, and only what scoring needs is kept: the last step."""
    batch_size: int = _detail(16)
    """Pictures generated at once, at least 1. Changes no picture."""
    device: str = _detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _need(bool(self.prompt.strip()), "prompt", self.prompt, "a text that is not empty")
        _need(self.n_images >= MIN_IMAGES, "n_images", self.n_images,
              f"at least {MIN_IMAGES}: fewer pictures cannot show what is rare")  # fmt: skip
        _need(self.base_seed >= 0, "base_seed", self.base_seed, "0 or more")
        _need(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _need(self.num_inference_steps is None or self.num_inference_steps >= 1, "num_inference_steps",
              self.num_inference_steps, "1 or more")  # fmt: skip
        for name in ("guidance_scale", "true_cfg_scale"):
            value = getattr(self, name)
            _need(value is None or 0 <= value < math.inf, name, value, "a number of 0 or more")


@dataclass(frozen=True)
class HookpointsConfig(LoadConfig):
    """For which pictures the hookpoints of a model are listed."""

    num_inference_steps: int | None = None
    """Denoising steps; None takes the model's own default."""
    height: int | None = None
    """Pixels; None takes the model's own default."""
    width: int | None = None
    """Pixels; None takes the model's own default."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""


@dataclass(frozen=True)
class SearchConfig(HookpointsConfig):
    """For which pictures the hookpoints of a model are listed, and by which they are compared."""

    prompt: str = "a photo of a doctor"
    """With --search: what the pictures are of; not empty. The best hookpoint may depend on it."""
    n_images: int = 300
    """With --search: pictures to generate, at least 50."""
    base_seed: int = 0
    """With --search: picture i has the seed base_seed + i; at least 0."""
    guidance_scale: float | None = None
    """With --search: classifier-free guidance; None takes the model's own default."""
    batch_size: int = 16
    """With --search: pictures generated at once, at least 1."""
    embedder: str | None = None
    """With --search: a folder or Hub id of a CLIP model; None is the bundled one for `portraits`, else
    `openai/clip-vit-large-patch14`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.capture("portraits")  # which checks the rest

    def capture(self, model: str) -> CaptureConfig:
        """The same pictures, as the stage `capture` would be told to make them."""
        shared = {f.name for f in fields(CaptureConfig)}
        return CaptureConfig(model=model, **{f.name: getattr(self, f.name) for f in fields(self) if f.name in shared})


@dataclass(frozen=True)
class SAEConfig:
    """The shape of a Matryoshka sparse autoencoder."""

    d_in: int
    """Width of a token, at least 1."""
    d_sae: int
    """Neurons in all, at least 2."""
    group_sizes: tuple[int, ...]
    """Neurons of each nested group, coarsest first; they add up to d_sae."""
    k: int
    """Mean number of active neurons per token, 1 <= k < d_sae."""
    aux_k: int = 64
    """How many dead neurons the auxiliary loss asks at most, 0 or more (published: 512)."""
    aux_weight: float = 1 / 32
    """Weight of the auxiliary loss, 0 or more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_sizes", tuple(self.group_sizes))
        _need(self.d_in >= 1, "d_in", self.d_in, "1 or more")
        _need(self.d_sae >= 2, "d_sae", self.d_sae, "2 or more")
        _need(all(size >= 1 for size in self.group_sizes) and sum(self.group_sizes) == self.d_sae, "group_sizes",
              self.group_sizes, f"positive numbers that add up to d_sae = {self.d_sae}")  # fmt: skip
        _need(1 <= self.k < self.d_sae, "k", self.k, f"1 <= k < d_sae = {self.d_sae}")
        _need(self.aux_k >= 0, "aux_k", self.aux_k, "0 or more")
        _need(self.aux_weight >= 0, "aux_weight", self.aux_weight, "0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """How the sparse autoencoder is trained. None scales with the model: see `sae_config`."""

    d_sae: int | None = None
    """Neurons in all; None is 16 x the width of a token (as published)."""
    group_sizes: tuple[int, ...] | None = None
    """Nested groups, coarsest first; None is a quarter and the rest (published: a tenth)."""
    k: int | None = None
    """Mean active neurons per token; None is a sixteenth of the width, between 8 and 32 (published: 32 of 1280)."""
    tokens_per_batch: int | None = None
    """Tokens of one training step, at least 1; None is 4096 (as published), or as few as make 2,500 steps, but 256."""
    epochs: int = 1
    """How often each captured token is seen, at least 1 (published: 5)."""
    lr: float = 1e-3
    """Adam's learning rate, above 0 (published: 3e-4, for far more tokens)."""
    sae_seed: int = 0
    """Seed of the initial weights and of the order of the tokens."""
    n_seeds: int = 1
    """Autoencoders trained side by side, at least 1, of seeds `sae_seed`, `sae_seed` + 1, ... The first is the one that
    is used; the others tell of each finding whether it hangs on the seed. Each costs as much training as the first."""
    steps_per_image: int | None = None
    """Denoising steps of each picture that are trained on, drawn for each at random; None is all. Not with a store."""
    tokens_per_step: int | None = None
    """Positions of each of these steps, drawn at random; None is all. Not with a store."""
    reservoir_mb: int = 1024
    """Memory in which tokens of many pictures are mixed while they are made, in megabytes, at least 1."""
    dead_after_tokens: int = 200_000
    """A neuron is dead once it has not fired for this many tokens ..."""
    dead_after_images: int = 600
    """... and this many distinct pictures: 600 show an attribute of 0.5 % at least once with probability .95."""

    def __post_init__(self) -> None:
        if self.group_sizes is not None:
            object.__setattr__(self, "group_sizes", tuple(self.group_sizes))
        for name in ("epochs", "n_seeds", "reservoir_mb", "dead_after_tokens", "dead_after_images"):
            _need(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("tokens_per_batch", "steps_per_image", "tokens_per_step"):
            value = getattr(self, name)
            _need(value is None or value >= 1, name, value, "1 or more")
        _need(self.lr > 0, "lr", self.lr, "a number above 0")

    def sae_config(self, d_in: int) -> SAEConfig:
        """The shape of the autoencoder for tokens of width `d_in`.

        >>> TrainConfig().sae_config(1280).group_sizes
        (5120, 15360)
        """
        d_sae = self.d_sae or (sum(self.group_sizes) if self.group_sizes else 16 * d_in)
        coarse = max(1, d_sae // 4)
        group_sizes = self.group_sizes or (coarse, d_sae - coarse)
        return SAEConfig(d_in, d_sae, group_sizes, self.k or min(32, max(8, d_in // 16)))

    def batch_of(self, n_tokens: int) -> int:
        """Tokens of one training step when there are `n_tokens` in all, over all epochs.

        >>> TrainConfig().batch_of(640_000), TrainConfig().batch_of(10**8), TrainConfig().batch_of(1_500_000)
        (256, 4096, 600)
        """
        return self.tokens_per_batch or max(256, min(4096, n_tokens // 2500))


class Pruning(NamedTuple):
    """Which neurons are too much alike, which scores too low, which too frequent: see `raigen.scores.prune`."""

    distance: float
    percentile: float
    max_frequency: float


@dataclass(frozen=True)
class DiscoverConfig:
    """How neurons are scored, pruned and listed."""

    score: Literal["coherent", "published"] = "coherent"
    """Which score orders the neurons: `coherent` (`raigen.scores.coherence_scores`) or `published`."""
    distance: float | None = None
    """A neuron whose centroid is nearer than this (cosine) to a better one is dropped; in [0, 2]. None is .5, or .003
    for the published score, whose centroids are neither centred nor whitened."""
    percentile: float | None = None
    """Only scores above this percentile are listed; in [0, 100). None is 0 (published: 90)."""
    max_frequency: float | None = None
    """Only neurons of at most this frequency are listed; in (0, 1]. None is .05, or what 20 pictures are where that is
    more (published: 1)."""
    n_attributes: int = 10
    """Neurons to list at most, at least 1."""
    n_top_images: int = 10
    """Pictures shown and named per neuron, at least 2."""
    min_images: int = 10
    """A neuron is listed only if it fires in at least this many pictures, 1 or more (published: 1). Fewer than ten
    cannot fill a row of top pictures, and nothing about them can be checked."""
    embedder: str | None = None
    """Image and text embedding: a folder or Hub id of a CLIP model; None is the bundled one for `portraits`, else
    `openai/clip-vit-large-patch14`."""

    def __post_init__(self) -> None:
        _need(self.score in ("coherent", "published"), "score", self.score, "coherent or published")
        _need(
            self.distance is None or 0 <= self.distance <= 2, "distance", self.distance, "a cosine distance in [0, 2]"
        )
        _need(self.percentile is None or 0 <= self.percentile < 100, "percentile", self.percentile,
              "a percentile in [0, 100)")  # fmt: skip
        _need(self.max_frequency is None or 0 < self.max_frequency <= 1, "max_frequency", self.max_frequency,
              "a share in (0, 1]")  # fmt: skip
        _need(self.n_attributes >= 1, "n_attributes", self.n_attributes, "1 or more")
        _need(self.n_top_images >= 2, "n_top_images", self.n_top_images, "2 or more")
        _need(self.min_images >= 1, "min_images", self.min_images, "1 or more")

    def pruning(self, n_images: int) -> Pruning:
        """`distance`, `percentile` and `max_frequency`, or what belongs to the score and to this many pictures."""
        published = Pruning(0.003, 90.0, 1.0)
        ours = Pruning(0.5, 0.0, min(1.0, max(0.05, 20 / n_images)))  # of few pictures, ten alike are already many
        default = published if self.score == "published" else ours
        chosen = (self.distance, self.percentile, self.max_frequency)
        return Pruning(*(given if own is None else own for own, given in zip(chosen, default, strict=True)))


@dataclass(frozen=True)
class AskConfig:
    """How vision-language models are asked, by the stages that ask any. None of it changes an answer."""

    concurrency: int = _detail(8)
    """Questions under way at once to a server, at least 1."""
    timeout: float = _detail(120.0)
    """Seconds to wait for one answer, above 0."""
    max_calls: int | None = _detail(None)
    """Questions to ask at most in one start of a stage, 0 or more. Answers are kept: the same command goes on."""
    max_cost: float | None = _detail(None)
    """What the answers of one start of a stage may cost, above 0; those under way may exceed it. Needs the prices."""
    price_in: float = _detail(0.0)
    """Price of a million tokens that the model reads, 0 or more."""
    price_out: float = _detail(0.0)
    """Price of a million tokens that the model writes, 0 or more."""

    def __post_init__(self) -> None:
        _need(self.concurrency >= 1, "concurrency", self.concurrency, "1 or more")
        _need(self.timeout > 0, "timeout", self.timeout, "seconds above 0")
        _need(self.max_calls is None or self.max_calls >= 0, "max_calls", self.max_calls, "0 or more")
        _need(self.max_cost is None or self.max_cost > 0, "max_cost", self.max_cost, "a sum above 0")
        _need(self.price_in >= 0, "price_in", self.price_in, "0 or more")
        _need(self.price_out >= 0, "price_out", self.price_out, "0 or more")
        _need(self.max_cost is None or self.price_in + self.price_out > 0, "max_cost", self.max_cost,
              "price_in or price_out beside it")  # fmt: skip


@dataclass(frozen=True)
class AnnotateConfig(AskConfig):
    """How the listed neurons are named."""

    annotator: str = "clip"
    """`clip`, or a vision-language model: `openai:MODEL`, `openai:MODEL@URL`, `transformers:FOLDER_OR_ID`,
    `scripted:FILE`."""
    vocabulary: str = "auto"
    """For clip: `auto`, `portraits`, `general`, or a text file with one phrase a line."""
    min_auroc: float = 0.8
    """For clip: a phrase names a neuron when it tells its top pictures from random ones at least this well; in
    [0.5, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_address("annotator", self.annotator, ("clip",))
        _need(0.5 <= self.min_auroc <= 1, "min_auroc", self.min_auroc, "a number in [0.5, 1]")


@dataclass(frozen=True)
class EvaluateConfig(AskConfig):
    """On which fresh pictures the rates are measured, and who judges them."""

    n_fresh_images: int = 300
    """Pictures with seeds of their own, at least 1."""
    n_suggested_images: int = 10
    """Pictures of the suggested prompt of each named attribute, which say how far the model can go; 0 makes none."""
    judge: tuple[str, ...] = ("auto",)
    """One or more: `portraits`, `clip`, vision-language models as for annotator; `auto` is `portraits` for the bundled
    model, else `clip`. The rate is that of the first, the others stand beside it."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged beside the discovered ones."""
    calibration: str | None = None
    """A CSV file of pictures with known answers: columns `judged` and `true` (yes or no), and where it matters `label`
    and `judge`. Rates without the judge's errors then stand beside the raw ones."""
    n_label_images: int = 20
    """Audited pictures on which each label is scored, of those in which its neuron fires and as many of the others; at
    least 10, or 0 to score none. Those from which the label was made are not among them."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "judge", (self.judge,) if isinstance(self.judge, str) else tuple(self.judge))
        _need(self.n_fresh_images >= 1, "n_fresh_images", self.n_fresh_images, "1 or more")
        _need(self.n_suggested_images >= 0, "n_suggested_images", self.n_suggested_images, "0 or more")
        _need(
            self.n_label_images == 0 or self.n_label_images >= 10,
            "n_label_images",
            self.n_label_images,
            "10 or more, or 0",
        )
        _need(len(self.judge) >= 1, "judge", self.judge, "one judge or more")
        for judge in self.judge:
            _need_address("judge", judge, ("auto", "portraits", "clip"))
        _need(0 < self.confidence < 1, "confidence", self.confidence, "a number in (0, 1)")


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows."""

    n_control_images: int = 10
    """Random pictures of the same prompt beside each neuron's top pictures, at least 1."""
    n_middle_images: int = 5
    """Pictures from the middle of those in which the neuron fires, 0 or more."""
    n_neighbours: int = 3
    """Neurons with the most similar pictures that are shown beside each, 0 or more."""
    n_children: int = 3
    """Fine neurons within each coarse one that are shown, those that cover most of it, 0 or more."""
    rarer_than: float = 0.05
    """The rate that attributes are tested to be rarer than, in (0, 1)."""

    def __post_init__(self) -> None:
        _need(self.n_control_images >= 1, "n_control_images", self.n_control_images, "1 or more")
        _need(self.n_middle_images >= 0, "n_middle_images", self.n_middle_images, "0 or more")
        _need(self.n_neighbours >= 0, "n_neighbours", self.n_neighbours, "0 or more")
        _need(self.n_children >= 0, "n_children", self.n_children, "0 or more")
        _need(0 < self.rarer_than < 1, "rarer_than", self.rarer_than, "a rate in (0, 1)")


@dataclass(frozen=True)
class CompareConfig(AskConfig):
    """How runs are compared: who judges, on how many pictures, and what counts as one attribute."""

    judge: str | None = None
    """`portraits`, `clip` or a vision-language model, one for all runs; None is the first judge of the runs, which must
    then be the same in all."""
    n_fresh_images: int | None = None
    """Fresh pictures of each run, at least 2; None takes those that were evaluated, which must then be as many in
    all. Those that are missing are made."""
    baseline: str | None = None
    """The model that the others are compared with; None is the first."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged beside those that were found."""
    closed_set: str | None = None
    """Axes that a person set, to see what such an audit finds and misses: a TOML or JSON file with a list of categories
    for each axis, or of categories with the wanted share of each; `portraits` are those shipped for the bundled
    model."""
    open_set: str | None = None
    """The same with axes that a language model proposes for each prompt (`openai:MODEL` and so on), or a file of them,
    or `portraits`."""
    min_similarity: float = 0.8
    """Two labels are one attribute only if the cosine of their texts is at least this, in [-1, 1]..."""
    min_agreement: float = 0.8
    """... and the judge's verdicts on them agree at least this well (Krippendorff's alpha); in [-1, 1]. Not where CLIP
    judges: it knows no more of the pictures than the texts say."""
    n_asked_images: int = 20
    """Pictures of a prompt that asks for the attribute, made where only another model lists it; 0 makes none."""
    drawn_rate: float = 0.2
    """A model knows an attribute if it shows it in more than this share of such pictures; in (0, 1)."""
    n_strip_images: int = 8
    """Pictures of each model, with the same seeds, that the report lays side by side; at least 1."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None:
            _need_address("judge", self.judge, ("portraits", "clip"))
        _need(
            self.n_fresh_images is None or self.n_fresh_images >= 2, "n_fresh_images", self.n_fresh_images, "2 or more"
        )
        if self.open_set is not None and self.open_set.partition(":")[0] in KINDS:
            address_of(self.open_set, "open_set")
        for name in ("min_similarity", "min_agreement"):
            _need(-1 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [-1, 1]")
        _need(self.n_asked_images >= 0, "n_asked_images", self.n_asked_images, "0 or more")
        _need(self.n_strip_images >= 1, "n_strip_images", self.n_strip_images, "1 or more")
        for name in ("drawn_rate", "confidence"):
            _need(0 < getattr(self, name) < 1, name, getattr(self, name), "a number in (0, 1)")


METHODS = ("steer", "set", "prompt", "select", "mix", "random-direction", "random-neuron")


@dataclass(frozen=True)
class AmplifyConfig(AskConfig):
    """Which attributes are brought out, how, how far, and on how many pictures that is measured."""

    attribute: tuple[int, ...] = ()
    """Ranks of listed attributes, from 1, each amplified by itself (`mix`: all at once). With --causal, none is all."""
    method: str = "steer"
    """`steer`, `set`, `prompt`, `select` or `mix`; or a control, `random-direction` or `random-neuron`."""
    strength: tuple[float, ...] = ()
    """How far, one point of the curve each. For `steer`, `set` and controls: in units of the neuron's scale, below 0
    turns it down (left out: 0.5, 1, 2; with --causal 1). For `prompt`: the share of revised prompts, in [0, 1] (left
    out: 1). For `select`: pictures made for each that is kept, at least 1 (left out: 1 / the measured rate)."""
    targets: tuple[float, ...] = ()
    """For `mix`: the wanted rate of each attribute, in [0, 1]."""
    n_images: int = 200
    """Pictures of each point, at least 2; all points have the same seeds."""
    also: tuple[int, ...] = ()
    """Further neurons, turned together with the attribute's own by the same strength, in units of their own scales."""
    steps: tuple[int, int] | None = None
    """First and last denoising step that are touched, counted from 0; None is all."""
    every_branch: bool = False
    """Touches what guidance leads away from, too, and not only what is told the prompt."""
    mask: str | None = None
    """A grey picture that says where: white is fully, black is not at all; None is everywhere."""
    causal: bool = False
    """Steers every attribute and two controls, and writes into attributes.json which of them are causal."""
    control_seed: int = 0
    """Draws the random direction and the random neuron, 0 or more."""
    judge: tuple[str, ...] = ("auto",)
    """As for evaluate."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""
    batch_size: int = _detail(16)
    """Pictures generated at once, at least 1."""
    device: str = _detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attribute", "strength", "targets", "also", "judge"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, tuple | list) else (value,))
        if self.steps is not None:
            object.__setattr__(self, "steps", tuple(self.steps))
            _need(len(self.steps) == 2 and 0 <= self.steps[0] <= self.steps[1], "steps", self.steps,
                  "a first and a last step, 0 <= first <= last")  # fmt: skip
        _need(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        _need(self.causal or len(self.attribute) >= 1, "attribute", self.attribute, "the rank of a listed attribute")
        _need(self.n_images >= 2, "n_images", self.n_images, "2 or more")
        _need(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _need(self.control_seed >= 0, "control_seed", self.control_seed, "0 or more")
        _need(0 < self.confidence < 1, "confidence", self.confidence, "a number in (0, 1)")
        for judge in self.judge:
            _need_address("judge", judge, ("auto", "portraits", "clip"))
        self._check_strengths()

    def _check_strengths(self) -> None:
        low, high = {"prompt": (0.0, 1.0), "select": (1.0, math.inf)}.get(self.method, (-math.inf, math.inf))
        for value in self.strength:
            _need(math.isfinite(value) and low <= value <= high, "strength", value,
                  f"a number from {low:g} to {high:g} for {self.method}")  # fmt: skip
        if self.method == "mix":
            _need(len(self.targets) == len(self.attribute) and all(0 <= t <= 1 for t in self.targets), "targets",
                  self.targets, f"a rate in [0, 1] for each of {len(self.attribute)} attributes")  # fmt: skip
        else:
            _need(not self.targets, "targets", self.targets, "none but for mix")
        _need(not self.causal or len(self.strength) <= 1, "strength", self.strength, "one strength with causal")
        _need(not self.causal or self.method == "steer", "method", self.method, "steer with causal")


@dataclass(frozen=True)
class AuditConfig:
    """One whole audit: a configuration for each stage, in the order in which they run."""

    capture: CaptureConfig
    train: TrainConfig = TrainConfig()
    discover: DiscoverConfig = DiscoverConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @classmethod
    def of(cls, prompt: str, **options: Any) -> "AuditConfig":
        """Puts each option into the stages that have a field of its name (two stages share only those of AskConfig).

        >>> AuditConfig.of("a photo of a doctor", n_images=300, k=4).train.k
        4
        """
        stages, used = {}, set()
        for stage in fields(cls):
            names = {f.name for f in fields(STAGE_CONFIGS[stage.name])}
            chosen = {name: value for name, value in options.items() if name in names}
            used |= chosen.keys()
            if stage.name == "capture":
                chosen["prompt"] = prompt
            stages[stage.name] = STAGE_CONFIGS[stage.name](**chosen)
        unknown = [name for name in options if name not in used]
        if unknown:
            known = sorted({f.name for config in STAGE_CONFIGS.values() for f in fields(config)} - {"prompt"})
            raise RaigenError(f"unknown option {unknown[0]!r}; the options are {', '.join(known)}")
        return cls(**stages)


STAGE_CONFIGS: dict[str, type] = {
    "capture": CaptureConfig,
    "train": TrainConfig,
    "discover": DiscoverConfig,
    "annotate": AnnotateConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
}
STAGES: tuple[str, ...] = tuple(STAGE_CONFIGS)


def identity(config: Any) -> dict[str, Any]:
    """The fields of a configuration that decide what comes out, as they stand in JSON (tuples as lists)."""
    kept = {f.name for f in fields(config) if f.metadata.get("identity", True)}
    values = {name: value for name, value in asdict(config).items() if name in kept}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
