"""Products of sparse codes, given as entries (row, column, value), with their gradients."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import Function

CHUNK = 2048  # entries whose vectors are gathered at once


class PrefixErrors(NamedTuple):
    """Summed squared error of each nested prefix (bias only, first group, ..., all), and the residual of the last."""

    squared: Float[Tensor, " prefix"]
    residual: Float[Tensor, "token d_in"]


def weighted_sums(
    bags: Int[Tensor, " entry"],
    n_bags: int,
    table: Float[Tensor, "row width"],
    rows: Int[Tensor, " entry"],
    weights: Float[Tensor, " entry"],
) -> Float[Tensor, "bag width"]:
    """For each bag, the sum of weight x table row over its entries. `bags` must be in rising order.

    >>> bags, rows = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1])
    >>> weighted_sums(bags, 3, torch.eye(2), rows, torch.tensor([2.0, 3.0, 4.0])).tolist()
    [[2.0, 3.0], [0.0, 0.0], [0.0, 4.0]]
    """
    offsets = torch.searchsorted(bags, torch.arange(n_bags, device=bags.device))
    return nn.functional.embedding_bag(rows, table, offsets, per_sample_weights=weights, mode="sum")


def kept_codes(
    pre: Float[Tensor, "token d_sae"],
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    rows: Int[Tensor, " entry"],
    columns: Int[Tensor, " entry"],
) -> Float[Tensor, " entry"]:
    """The entries of relu((x - b_dec) W_enc + b_enc) at (rows, columns), with gradients for weights and biases.

    `pre` is (x - b_dec) W_enc + b_enc without gradient. The gradients are sparse products: none is [token, d_sae].
    Where the precision of `pre` is not the precision of the tokens, the entries are computed again in the latter.
    """
    return _KeptCodes.apply(pre, x, W_enc, b_enc, b_dec, rows, columns)  # type: ignore[return-value]


def prefix_errors(
    codes: Float[Tensor, " entry"],
    rows: Int[Tensor, " entry"],
    columns: Int[Tensor, " entry"],
    x: Float[Tensor, "token d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    bounds: tuple[int, ...],
) -> PrefixErrors:
    """|x - x_prefix|^2, summed over all tokens, where prefix g decodes the entries in columns below bounds[g].

    `rows` must be in rising order. Many prefixes take no more memory than one. `residual` carries no gradient.
    """
    return PrefixErrors(*_PrefixErrors.apply(codes, W_dec, b_dec, x, rows, columns, bounds))  # type: ignore[misc]


class _KeptCodes(Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        pre, x, W_enc, b_enc, b_dec, rows, columns = given
        if pre.dtype == x.dtype:
            codes = pre.view(-1).gather(0, rows * pre.shape[1] + columns)
        else:
            codes = _dots(x - b_dec, rows, W_enc.T.contiguous(), columns) + b_enc[columns]
        codes = codes.relu()
        ctx.save_for_backward(x, W_enc, b_dec, rows, columns, codes)
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, W_enc, b_dec, rows, columns, codes = ctx.saved_tensors
        grad = grads[0] * (codes > 0)
        order = columns.argsort(stable=True)
        weights = weighted_sums(columns[order], W_enc.shape[1], x - b_dec, rows[order], grad[order])
        biases = grad.new_zeros(W_enc.shape[1]).index_add_(0, columns, grad)
        return None, None, weights.T.contiguous(), biases, -(W_enc @ biases), None, None


class _PrefixErrors(Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        codes, W_dec, b_dec, x, rows, columns, bounds = given
        groups = [((columns >= start) & (columns < end)).nonzero().squeeze(1) for start, end in pairwise(bounds)]
        residual = x - b_dec
        squared = [residual.square().sum()]
        for entries in groups:
            residual = residual - weighted_sums(rows[entries], len(x), W_dec, columns[entries], codes[entries])
            squared.append(residual.square().sum())
        ctx.save_for_backward(codes, W_dec, rows, columns, residual, *groups)
        ctx.bounds = bounds
        ctx.mark_non_differentiable(residual)
        return torch.stack(squared), residual

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        codes, W_dec, rows, columns, residual, *groups = ctx.saved_tensors
        along = -2 * grads[0]
        grad_codes, grad_dec = torch.empty_like(codes), torch.empty_like(W_dec)
        pull = along[-1] * residual  # the gradient of all prefixes from here on, with respect to the reconstruction
        for level in reversed(range(len(groups))):  # the previous residual is recomputed, not stored
            (start, end), entries = ctx.bounds[level : level + 2], groups[level]
            row, column, value = rows[entries], columns[entries], codes[entries]
            grad_codes[entries] = _dots(pull, row, W_dec, column)
            order = column.argsort(stable=True)
            grad_dec[start:end] = weighted_sums(column[order] - start, end - start, pull, row[order], value[order])
            residual = residual + weighted_sums(row, len(residual), W_dec, column, value)
            pull = pull + along[level] * residual
        return grad_codes, grad_dec, pull.sum(0), None, None, None, None


def _dots(one: Tensor, rows: Tensor, other: Tensor, columns: Tensor) -> Float[Tensor, " entry"]:
    """<one[row], other[column]> for each entry."""
    parts = zip(rows.split(CHUNK), columns.split(CHUNK), strict=True)
    return torch.cat([(one[row] * other[column]).sum(1) for row, column in parts])
