"""The autoencoder: its shape and its training."""

from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge, Gt

from raigen.config.fields import check_ranges, need


@dataclass(frozen=True)
class SAEConfig:
    """The shape of a Matryoshka sparse autoencoder."""

    d_in: Annotated[int, Ge(1)]
    """Width of a token, at least 1."""
    d_sae: Annotated[int, Ge(2)]
    """Number of neurons, at least 2."""
    group_sizes: tuple[int, ...]
    """Neurons in each nested group, coarsest first; they add up to d_sae."""
    k: int
    """Mean number of active neurons per token, 1 <= k < d_sae."""
    aux_k: Annotated[int, Ge(0)] = 64
    """Most dead neurons that the auxiliary loss uses per token, 0 or more (published: 512)."""
    aux_weight: Annotated[float, Ge(0)] = 1 / 32
    """Weight of the auxiliary loss, 0 or more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_sizes", tuple(self.group_sizes))
        check_ranges(self)
        need(all(size >= 1 for size in self.group_sizes) and sum(self.group_sizes) == self.d_sae, "group_sizes",
             self.group_sizes, f"positive numbers that add up to d_sae = {self.d_sae}")  # fmt: skip
        need(1 <= self.k < self.d_sae, "k", self.k, f"1 <= k < d_sae = {self.d_sae}")


@dataclass(frozen=True)
class TrainConfig:
    """How the sparse autoencoder is trained. The shape follows the width of the model's tokens unless it is given."""

    sae: str | None = None
    """A folder that `raigen share` wrote, or its id on the Hub: audit with this autoencoder, and train none. None
    trains one."""
    sae_revision: str | None = None
    """Branch, tag or commit of an autoencoder on the Hub; None is its main branch."""
    d_sae: Annotated[int | None, Ge(2)] = None
    """Number of neurons, at least 2; None is 16 x the width of a token (as published)."""
    group_sizes: tuple[int, ...] | None = None
    """Neurons in each nested group, coarsest first, adding up to d_sae; None is two groups, a quarter and the rest
    (published: a tenth and the rest)."""
    k: Annotated[int | None, Ge(1)] = None
    """Mean number of active neurons per token, from 1 to d_sae - 1; None is a sixteenth of the width of a token, but
    from 8 to 32 (published: 32 for a width of 1280)."""
    tokens_per_batch: Annotated[int | None, Ge(1)] = None
    """Tokens in one training step, at least 1; None is 4096 (as published), or fewer for about 2,500 steps in all, but
    at least 256."""
    epochs: Annotated[int, Ge(1)] = 1
    """Times that each captured token is used, at least 1 (published: 5)."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Adam's learning rate, above 0 (published: 3e-4, for far more tokens)."""
    sae_seed: int = 0
    """Seed of the initial weights and of the order of the tokens."""
    n_seeds: Annotated[int, Ge(1)] = 1
    """Autoencoders to train on the same images, at least 1, with seeds from `sae_seed` upward. The first one is used;
    the others show which findings depend on the seed. Each takes as long to train as the first."""
    steps_per_image: Annotated[int | None, Ge(1)] = None
    """Denoising steps to train on per image, drawn at random, at least 1; None is all. Not with --store."""
    tokens_per_step: Annotated[int | None, Ge(1)] = None
    """Tokens to train on per denoising step of an image, drawn at random, at least 1; None is all. Not with --store."""
    input_scaling: bool = False
    """Scale the tokens of each denoising step to mean 0 and variance 1 for training. The saved autoencoder takes raw
    tokens of the last captured step, which is the one that is scored."""
    reservoir_mb: Annotated[int, Ge(1)] = 1024
    """Memory, in megabytes, in which the tokens of many images are mixed before training; at least 1."""
    dead_after_tokens: Annotated[int, Ge(1)] = 200_000
    """A neuron counts as dead only after this many tokens without firing, at least 1; --dead-after-images must have
    passed, too."""
    dead_after_images: Annotated[int, Ge(1)] = 600
    """A neuron counts as dead only after this many distinct images without firing, at least 1; --dead-after-tokens must
    have passed, too. Among 600 images, an attribute of 0.5 % shows at least once with probability 0.95."""

    def __post_init__(self) -> None:
        if self.group_sizes is not None:
            object.__setattr__(self, "group_sizes", tuple(self.group_sizes))
        check_ranges(self)
        need(self.group_sizes is None or sum(self.group_sizes) >= 2, "group_sizes", self.group_sizes,
             "numbers that add up to d_sae, which is at least 2")  # fmt: skip
        need(self.sae is not None or self.sae_revision is None, "sae_revision", self.sae_revision,
             "none without an autoencoder in sae")  # fmt: skip
        for each in fields(self) if self.sae is not None else ():
            value = getattr(self, each.name)
            need(each.name in ("sae", "sae_revision") or value == each.default, each.name, value,
                 "none with sae, whose autoencoder is trained already")  # fmt: skip
        d_sae = self.d_sae or sum(self.group_sizes or ()) or None
        if d_sae is not None and (self.k or self.group_sizes):  # the rest depends on the width of a token
            SAEConfig(1, d_sae, self.group_sizes or (d_sae,), self.k or 1)

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
        """Tokens in one training step when there are `n_tokens` in all, over all epochs.

        >>> TrainConfig().batch_of(640_000), TrainConfig().batch_of(10**8), TrainConfig().batch_of(1_500_000)
        (256, 4096, 600)
        """
        return self.tokens_per_batch or max(256, min(4096, n_tokens // 2500))
