"""The autoencoder: its shape and its training."""

from dataclasses import dataclass

from raigen.config.fields import need


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
        need(self.d_in >= 1, "d_in", self.d_in, "1 or more")
        need(self.d_sae >= 2, "d_sae", self.d_sae, "2 or more")
        need(all(size >= 1 for size in self.group_sizes) and sum(self.group_sizes) == self.d_sae, "group_sizes",
              self.group_sizes, f"positive numbers that add up to d_sae = {self.d_sae}")  # fmt: skip
        need(1 <= self.k < self.d_sae, "k", self.k, f"1 <= k < d_sae = {self.d_sae}")
        need(self.aux_k >= 0, "aux_k", self.aux_k, "0 or more")
        need(self.aux_weight >= 0, "aux_weight", self.aux_weight, "0 or more")


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
    """Denoising steps of each image that are trained on, drawn for each at random; None is all. Not with a store."""
    tokens_per_step: int | None = None
    """Positions of each of these steps, drawn at random; None is all. Not with a store."""
    input_scaling: bool = False
    """Whether the tokens of every denoising step are brought to mean 0 and variance 1 first. What is saved is for raw
    tokens of the last step kept, the one that is scored."""
    reservoir_mb: int = 1024
    """Memory in which tokens of many images are mixed while they are made, in megabytes, at least 1."""
    dead_after_tokens: int = 200_000
    """A neuron is dead once it has not fired for this many tokens ..."""
    dead_after_images: int = 600
    """... and this many distinct images: 600 show an attribute of 0.5 % at least once with probability .95."""

    def __post_init__(self) -> None:
        if self.group_sizes is not None:
            object.__setattr__(self, "group_sizes", tuple(self.group_sizes))
        for name in ("epochs", "n_seeds", "reservoir_mb", "dead_after_tokens", "dead_after_images"):
            need(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("tokens_per_batch", "steps_per_image", "tokens_per_step"):
            value = getattr(self, name)
            need(value is None or value >= 1, name, value, "1 or more")
        need(self.lr > 0, "lr", self.lr, "a number above 0")

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
