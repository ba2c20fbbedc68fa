"""The Matryoshka sparse autoencoder."""

import json
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from raigen.config import SAEConfig, object_of
from raigen.errors import RaigenError
from raigen.runs.files import write_tensors, write_text
from raigen.sae.hub import fetched
from raigen.sae.sparse import kept_codes, prefix_errors, weighted_sums

THRESHOLD_DECAY = 0.95  # of the running mean of the threshold, per training step
ALL = slice(None)
CHUNK = 2048  # tokens whose pre-activations are held at once in calibration


class SAELoss(NamedTuple):
    """The loss of one batch. `fvu` and `l0` are detached; `fvu` has one entry per prefix (bias only, coarse, ..., all).

    `fvu` = squared error / squared distance to the mean of the batch, 0 or more, 1 for a constant; `l0` = active
    neurons per token; `fired` = which neurons were active at least once.
    """

    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    fvu: Float[Tensor, " prefix"]
    l0: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]


class MatryoshkaSAE(nn.Module):
    """A sparse autoencoder whose first neurons alone must already reconstruct the token (Bussmann et al. 2025).

    Training codes are BatchTopK (Bussmann et al. 2024): the k * n_tokens largest of a batch stay. Inference codes
    (`encode`) keep every value above `threshold`, so that the codes of a token do not depend on other tokens. The
    threshold is a running mean of the smallest code that stays during training, and `calibrate` sets it afterwards. All
    weights are 0 until `initialize` or `load`.

    >>> sae = MatryoshkaSAE(SAEConfig(d_in=4, d_sae=8, group_sizes=(2, 6), k=2))
    >>> sae.initialize(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
    >>> sae.group_bounds, sae.encode(torch.zeros(3, 4)).shape
    ((0, 2, 8), torch.Size([3, 8]))
    """

    threshold: Tensor

    def __init__(self, config: SAEConfig):
        super().__init__()
        self.config = config
        self.group_bounds = tuple(accumulate(config.group_sizes, initial=0))
        """Prefix g, from 0 (bias only) to n_groups, holds the neurons below `group_bounds[g]`."""
        self.W_enc = nn.Parameter(torch.zeros(config.d_in, config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, config.d_in))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        self.search_dtype: torch.dtype | None = None
        """The precision in which `loss` searches for the largest pre-activations; None is the precision of the weights.
        The values that stay are always computed in the precision of the weights."""
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))

    def __repr__(self) -> str:
        c, groups = self.config, ", ".join(f"{size:,}" for size in self.config.group_sizes)
        return (f"MatryoshkaSAE({c.d_sae:,} neurons in groups of {groups} for tokens of width {c.d_in:,}, k = {c.k}, "
                f"threshold {float(self.threshold):.3g})")  # fmt: skip

    def initialize(self, tokens: Float[Tensor, "token d_in"], generator: torch.Generator | None = None) -> None:
        """Sets b_dec to the mean of `tokens`, W_dec to random unit rows, W_enc to its transpose, the rest to 0."""
        with torch.no_grad():
            self.W_dec.copy_(torch.randn(self.W_dec.shape, generator=generator))
            self.unit_norm_decoder()
            self.W_enc.copy_(self.W_dec.T)
            self.b_dec.copy_(tokens.mean(dim=0))
            self.b_enc.zero_()
            self.threshold.zero_()

    def pre_activations(
        self, x: Float[Tensor, "token width"], neurons: slice | list[int] = ALL
    ) -> Float[Tensor, "token neuron"]:
        """(x - b_dec) W_enc + b_enc, for all neurons or some; only these are computed.

        Raises RaigenError when `x` is not `d_in` wide.
        """
        if x.shape[1] != self.config.d_in:
            raise RaigenError(
                f"tokens: expected width {self.config.d_in}, for which this autoencoder was made; got {x.shape[1]}"
            )
        return torch.addmm(self.b_enc[neurons], x - self.b_dec, self.W_enc[:, neurons])

    def encode(
        self, x: Float[Tensor, "token width"], neurons: slice | list[int] = ALL
    ) -> Float[Tensor, "token neuron"]:
        """The codes of tokens, for all neurons or some: pre-activations above `threshold` and 0, else 0.

        Scores, heatmaps and steering all use this encoding. Raises RaigenError when `x` is not `d_in` wide.
        """
        pre = self.pre_activations(x, neurons).relu()
        return pre * (pre > self.threshold)

    def max_codes(self, activations: Float[Tensor, "image token d_in"]) -> Float[Tensor, "image neuron"]:
        """The largest code of each neuron over the positions of each image; raises as `encode` does.

        Works on one image at a time: the codes of all neurons at all positions of many images would fill the memory.
        """
        return torch.stack([self.encode(tokens.to(self.W_enc.device)).amax(0) for tokens in activations])

    def mean_codes(
        self, activations: Float[Tensor, "image token d_in"], groups: int | None = None
    ) -> Float[Tensor, "image neuron"]:
        """The mean code over the positions of each image, for the neurons of the first `groups` groups; None is all
        groups. Raises as `encode` does."""
        some = ALL if groups is None else slice(self.group_bounds[groups])
        return torch.stack([self.encode(tokens.to(self.W_enc.device), some).mean(0) for tokens in activations])

    def decode(self, codes: Float[Tensor, "token s"], groups: int | None = None) -> Float[Tensor, "token d_in"]:
        """codes W_dec + b_dec, with the neurons of the first `groups` groups: 0 is the bias only, None is all."""
        end = self.group_bounds[-1 if groups is None else groups]
        return codes[:, :end] @ self.W_dec[:end] + self.b_dec

    def loss(self, x: Float[Tensor, "token width"], dead: Bool[Tensor, " d_sae"] | None = None) -> SAELoss:
        """The training loss of a batch: the error of each prefix, and the error that dead neurons could explain.

        reconstruction = mean over prefixes (bias only, coarse, ..., all) of |x - x_prefix|^2, summed over d_in and
        averaged over tokens. auxiliary (AuxK, Gao et al. 2024), in the same unit, = |r - r_dead|^2 where r is the
        residual of the full reconstruction, held fixed, and r_dead the decoding, without bias, of each token's `aux_k`
        strongest `dead` neurons; 0 when none is dead. total = reconstruction + aux_weight * auxiliary.

        In training mode also moves `threshold`. Raises RaigenError when `x` is not `d_in` wide.
        """
        with torch.no_grad(), torch.autocast(x.device.type, self.search_dtype, enabled=self.search_dtype is not None):
            pre = self.pre_activations(x)
        kept = self._largest(pre, self.config.k * len(x))
        rows, columns = kept // self.config.d_sae, kept % self.config.d_sae
        has_dead = dead is not None and self.config.aux_k > 0 and bool(dead.any())
        dead_rows, dead_columns = self._strongest_dead(pre, dead if has_dead else None)
        entries = torch.cat([rows, dead_rows]), torch.cat([columns, dead_columns])
        codes, dead_codes = kept_codes(pre, x, self.W_enc, self.b_enc, self.b_dec, *entries).split(
            [len(rows), len(dead_rows)]
        )
        squared, residual = prefix_errors(codes, rows, columns, x, self.W_dec, self.b_dec, self.group_bounds)
        auxiliary = torch.zeros((), dtype=x.dtype, device=x.device)
        if has_dead:
            explained = weighted_sums(dead_rows, len(x), self.W_dec, dead_columns, dead_codes)
            auxiliary = (residual - explained).square().sum(dim=1).mean()
        if self.training:
            self._move_threshold(codes.detach())
        mean_loss = squared.mean() / len(x)
        return SAELoss(
            total=mean_loss + self.config.aux_weight * auxiliary,
            reconstruction=mean_loss,
            auxiliary=auxiliary,
            fvu=squared.detach() / (x - x.mean(dim=0)).square().sum(),
            l0=torch.tensor(len(kept) / len(x), device=x.device),
            fired=torch.zeros(self.config.d_sae, dtype=torch.bool, device=x.device).index_fill(0, columns, True),
        )

    @torch.no_grad()
    def calibrate(self, tokens: Float[Tensor, "token d_in"]) -> None:
        """Sets `threshold` so that, on average, exactly k codes per token stay (fewer where fewer are above 0, or where
        values tie): the last step of a training, when the weights are final.

        On other tokens of the same kind, the mean number of codes then differs from k by sampling error only. Raises
        RaigenError when the tokens are not `d_in` wide.

        >>> sae = MatryoshkaSAE(SAEConfig(d_in=4, d_sae=8, group_sizes=(2, 6), k=2))
        >>> tokens = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> sae.initialize(tokens)
        >>> sae.calibrate(tokens)
        >>> int((sae.encode(tokens) > 0).sum())
        200
        """
        count = self.config.k * len(tokens)
        largest = tokens.new_zeros(0)
        for chunk in tokens.split(CHUNK):
            pre = self.pre_activations(chunk).flatten()
            largest = torch.cat([largest, pre[pre > 0]])
            if len(largest) > count + 1:  # the smallest of these is the first that must not stay
                largest = largest.topk(count + 1, sorted=False).values
        self.threshold.fill_(largest.min() if len(largest) > count else 0.0)

    def unit_norm_decoder(self) -> None:
        """Divides each row of W_dec by its length."""
        with torch.no_grad():
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def project_decoder_gradient(self) -> None:
        """Removes the part of the gradient of W_dec that would change the lengths of its (unit) rows."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec.detach()).sum(dim=1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec.detach(), value=-1)

    def save(self, dir: str | Path) -> list[Path]:
        """Writes config.json and model.safetensors into `dir`; returns their paths."""
        paths = [Path(dir) / "config.json", Path(dir) / "model.safetensors"]
        write_text(paths[0], json.dumps(asdict(self.config), indent=1))
        write_tensors(paths[1], self.state_dict())
        return paths

    @classmethod
    def load(cls, dir: str | Path) -> "MatryoshkaSAE":
        """The autoencoder that `save` wrote, on the CPU, for inference. Raises RaigenError where it is missing or
        broken."""
        path = Path(dir)
        return cls._read(path, f"Make it again with: raigen train {path.parent} --redo train")

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None, offline: bool = False) -> "MatryoshkaSAE":
        """The autoencoder in a folder, or in a repository of the Hub at a branch, tag or commit, on the CPU, for
        inference. `offline` asks nothing but the local cache. Raises RaigenError where it is missing, broken or cannot
        be reached."""
        return cls._read(fetched(source, revision, offline), "Download it again")

    @classmethod
    def _read(cls, path: Path, remedy: str) -> "MatryoshkaSAE":
        try:
            sae = cls(SAEConfig(**object_of(path / "config.json")))
            sae.load_state_dict(load_file(path / "model.safetensors"))
        except FileNotFoundError as error:
            raise RaigenError(f"{path}: expected config.json and model.safetensors; {error}. {remedy}") from error
        except (TypeError, RaigenError, SafetensorError, RuntimeError) as error:
            raise RaigenError(f"{path}: expected a whole autoencoder; it is broken ({error}). {remedy}") from error
        return sae.eval()

    def _largest(self, pre: Float[Tensor, "token d_sae"], count: int) -> Int[Tensor, " kept"]:
        """Flat indices, in rising order, of the `count` largest entries that are above 0.

        The result is exact. Where enough entries exceed nine tenths of the threshold, only these are compared.
        """
        flat = pre.reshape(-1)
        for floor in (0.9 * self.threshold, 0.0):
            candidates = (flat > floor).nonzero().squeeze(1)
            if len(candidates) >= count:
                return candidates[flat[candidates].topk(count, sorted=False).indices].sort().values
        return candidates

    def _strongest_dead(self, pre: Tensor, dead: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows and columns of each token's `aux_k` strongest dead neurons whose pre-activations are above 0."""
        if dead is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=pre.device)
            return nothing, nothing
        neurons = dead.nonzero().squeeze(1)
        strongest = pre.index_select(1, neurons).topk(min(self.config.aux_k, len(neurons)), dim=1, sorted=False)
        rows, places = (strongest.values > 0).nonzero(as_tuple=True)
        return rows, neurons[strongest.indices[rows, places]]

    def _move_threshold(self, codes: Float[Tensor, " kept"]) -> None:
        if len(codes):
            smallest = codes.min().double()
            step = 1 - THRESHOLD_DECAY if self.threshold > 0 else 1.0
            self.threshold += step * (smallest - self.threshold)
