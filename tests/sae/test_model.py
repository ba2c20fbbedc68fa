"""The autoencoder: against a plain dense reference, on hand-made weights, and through its files."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raigen.config import SAEConfig
from raigen.errors import RaigenError
from raigen.sae import model as sae_module
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.sparse import kept_codes

CONFIG = SAEConfig(d_in=8, d_sae=24, group_sizes=(6, 8, 10), k=3, aux_k=4, aux_weight=0.25)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(n: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(n, CONFIG.d_in, generator=generator(seed)) + 0.7


@pytest.fixture
def sae() -> MatryoshkaSAE:
    made = MatryoshkaSAE(CONFIG)
    made.initialize(tokens(), generator())
    with torch.no_grad():
        made.b_enc.add_(0.05 * torch.randn(CONFIG.d_sae, generator=generator(2)))
    return made


def dense_loss(sae: MatryoshkaSAE, x: Tensor, dead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss from its definition: full sort, dense codes, dense products. (total, errors per prefix, codes)"""
    config = sae.config
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    order = pre.flatten().argsort(descending=True)
    chosen = torch.zeros(pre.numel(), dtype=torch.bool).index_fill(0, order[: config.k * len(x)], True)
    codes = torch.where(chosen.view_as(pre) & (pre > 0), pre, 0.0)
    recons = [codes[:, :end] @ sae.W_dec[:end] + sae.b_dec for end in sae.group_bounds]
    errors = torch.stack([((x - recon) ** 2).sum(dim=1).mean() for recon in recons])
    residual = (x - recons[-1]).detach()
    strongest = torch.where(dead, pre, -1.0).argsort(dim=1, descending=True)[:, : config.aux_k]
    among = torch.zeros_like(pre, dtype=torch.bool).scatter(1, strongest, True) & dead
    explained = torch.where(among, pre.relu(), 0.0) @ sae.W_dec
    auxiliary = ((residual - explained) ** 2).sum(dim=1).mean() if dead.any() else torch.tensor(0.0).to(x)
    return errors.mean() + config.aux_weight * auxiliary, errors, codes


@pytest.mark.parametrize("n_dead", [0, 2, 4, 10])
@pytest.mark.parametrize("warm", [False, True])
def test_loss_and_gradients_are_those_of_the_dense_definition(sae, n_dead, warm):
    x, dead = tokens(seed=5), torch.arange(CONFIG.d_sae) >= CONFIG.d_sae - n_dead
    if warm:  # a threshold from another batch steers the search, never its result
        sae.threshold.fill_(0.9)
    total, errors, codes = dense_loss(sae, x, dead)
    wanted = torch.autograd.grad(total, list(sae.parameters()))
    loss = sae.loss(x, dead)
    torch.testing.assert_close(loss.total, total)
    torch.testing.assert_close(loss.reconstruction, errors.mean())
    torch.testing.assert_close(loss.fvu, errors.detach() * len(x) / (x - x.mean(0)).square().sum())
    assert loss.l0 == (codes > 0).sum() / len(x) and torch.equal(loss.fired, (codes > 0).any(dim=0))
    for found, reference in zip(torch.autograd.grad(loss.total, list(sae.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, reference, atol=1e-5, rtol=1e-4)


@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 9), d_in=st.integers(1, 6), k=st.integers(1, 5),
    aux_k=st.integers(0, 4),
    groups=st.lists(st.integers(1, 5), min_size=1, max_size=5), shift=st.sampled_from([0.0, -0.5, -1.5]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_sparse_form_is_the_dense_one_for_every_shape(seed, n, d_in, k, aux_k, groups, shift):
    """One token, one group, many groups, k beyond the entries above 0 (a low bias), dead neurons."""
    d_sae = sum(groups) + 1
    made = MatryoshkaSAE(SAEConfig(d_in, d_sae, (*groups, 1), min(k, d_sae - 1), aux_k, 0.3)).double()
    made.initialize(torch.randn(4, d_in, generator=generator(seed)).double())
    with torch.no_grad():
        made.W_enc.copy_(torch.randn(d_in, d_sae, generator=generator(seed + 1)))
        made.W_dec.copy_(torch.randn(d_sae, d_in, generator=generator(seed + 2)))
        made.b_enc.copy_(torch.randn(d_sae, generator=generator(seed + 3)) + shift)
    x = torch.randn(n, d_in, generator=generator(seed + 4)).double()
    dead = torch.rand(d_sae, generator=generator(seed + 5)) < 0.3
    total, _, codes = dense_loss(made, x, dead if aux_k else torch.zeros_like(dead))
    loss = made.loss(x, dead)
    torch.testing.assert_close(loss.total, total, atol=1e-9, rtol=1e-9)
    assert torch.equal(loss.fired, (codes > 0).any(dim=0))
    wanted = torch.autograd.grad(total, list(made.parameters()))
    for found, reference in zip(torch.autograd.grad(loss.total, list(made.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, reference, atol=1e-9, rtol=1e-9)


def test_ties_change_neither_how_many_stay_nor_the_loss(sae):
    """Twin neurons: whichever of two equal entries stays, the loss is the same."""
    with torch.no_grad():
        for weights in (sae.W_enc.T, sae.W_dec, sae.b_enc):
            weights[12:] = weights[:12]
    x = tokens(7)
    _, _, codes = dense_loss(sae, x, torch.zeros(CONFIG.d_sae, dtype=torch.bool))
    loss = sae.loss(x)
    assert float(loss.l0) * len(x) == int((codes > 0).sum()) == CONFIG.k * len(x)
    torch.testing.assert_close(loss.fvu[-1], ((x - sae.decode(codes)) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


def test_gradients_agree_with_finite_differences(sae):
    sae.double()
    x = tokens(12).double()
    for parameter in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec):
        (gradient,) = torch.autograd.grad(sae.loss(x).total, [parameter])
        place = gradient.abs().argmax()
        ends = []
        for shift in (1e-6, -2e-6):
            parameter.data.view(-1)[place] += shift
            ends.append(sae.loss(x).total.item())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient.view(-1)[place].item(), rel=1e-4)


def test_searched_in_half_precision_the_codes_that_stay_are_exact(sae):
    x, dead = tokens(400, seed=5), torch.arange(CONFIG.d_sae) >= 20
    exact = sae.loss(x, dead)
    sae.search_dtype = torch.bfloat16
    with torch.no_grad():
        rough = sae.loss(x, dead)
    # Another entry may stay where two are alike to two digits: the loss is as good, and no code is rounded.
    torch.testing.assert_close(rough.total, exact.total, rtol=2e-3, atol=0)
    assert rough.total != exact.total
    pre, kept = sae.pre_activations(x).detach(), torch.tensor([[0, 3], [7, 1], [9, 20]]).T
    codes = kept_codes(pre.bfloat16(), x, sae.W_enc, sae.b_enc, sae.b_dec, *kept)
    wanted = kept_codes(pre, x, sae.W_enc, sae.b_enc, sae.b_dec, *kept)
    torch.testing.assert_close(codes, wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(wanted, pre[kept[0], kept[1]].relu()) and not torch.equal(wanted, wanted.bfloat16().float())
    for one, other in zip(*(torch.autograd.grad(c.square().sum(), list(sae.parameters()), allow_unused=True)
                            for c in (codes, wanted)), strict=True):  # fmt: skip
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_auxiliary_loss_moves_dead_neurons_only(sae):
    x, dead = tokens(), torch.arange(CONFIG.d_sae) < 5
    grads = dict(
        zip(("enc", "dec"), torch.autograd.grad(sae.loss(x, dead).auxiliary, [sae.W_enc, sae.W_dec]), strict=True)
    )
    assert not grads["enc"][:, 5:].any() and not grads["dec"][5:].any()
    assert grads["enc"][:, :5].any() and grads["dec"][:5].any()


def batch_topk(sae: MatryoshkaSAE, pre: torch.Tensor, k: int) -> torch.Tensor:
    """The training codes: the k * n_tokens largest positive pre-activations of the whole batch; 0 elsewhere."""
    kept = sae._largest(pre.detach(), k * len(pre))
    flat = pre.reshape(-1)
    return torch.zeros_like(flat).scatter(0, kept, flat.gather(0, kept)).view_as(pre)


def test_batch_topk_keeps_the_largest_of_the_whole_batch(sae):
    pre = torch.tensor([[5.0, 4, 3, 2], [1, -1, 0.5, -2]])
    assert batch_topk(sae, pre, 2).tolist() == [[5, 4, 3, 2], [0, 0, 0, 0]]
    assert batch_topk(sae, pre, 3).tolist() == [[5, 4, 3, 2], [1, 0, 0.5, 0]]
    assert batch_topk(sae, -pre.abs(), 2).count_nonzero() == 0
    sae.threshold.fill_(4.5)  # too high a floor finds too few and must not cost any
    assert batch_topk(sae, pre, 2).tolist() == [[5, 4, 3, 2], [0, 0, 0, 0]]


def test_batch_topk_is_exact_when_values_tie(sae):
    assert batch_topk(sae, torch.ones(5, 4), 2).sum() == 10


def test_encode_is_centerd_and_cut_at_the_threshold():
    sae = MatryoshkaSAE(SAEConfig(d_in=2, d_sae=3, group_sizes=(1, 2), k=1))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
        sae.W_dec.copy_(torch.eye(3, 2))
        sae.b_dec.copy_(torch.tensor([10.0, 20]))
        sae.b_enc.copy_(torch.tensor([0.0, 0.5, -1]))
        sae.threshold.fill_(1.0)
    x = torch.tensor([[12.0, 21.0], [11.0, 20.0], [0.0, 0.0]])
    assert sae.encode(x).tolist() == [[2, 1.5, 2], [0, 0, 0], [0, 0, 0]]
    assert sae.encode(x, slice(1)).tolist() == [[2], [0], [0]]
    codes = sae.encode(x)[:1]
    assert sae.decode(codes, groups=0).tolist() == [[10, 20]]
    assert sae.decode(codes, groups=1).tolist() == [[12, 20]]
    assert sae.decode(codes, groups=2).tolist() == sae.decode(codes).tolist() == [[12, 21.5]]


def test_encode_does_not_depend_on_the_batch(sae):
    sae.threshold.fill_(0.8)
    x = tokens(64)
    together = sae.encode(x)
    alone = torch.cat([sae.encode(row[None]) for row in x])
    torch.testing.assert_close(together, alone)
    assert (together > 0).any() and not ((together > 0) & (together <= 0.8)).any()
    torch.testing.assert_close(together[:, :14], sae.encode(x, slice(14)))
    torch.testing.assert_close(together[:, [20, 3]], sae.encode(x, [20, 3]))


def test_group_bounds_are_offsets_not_sizes(sae):
    assert sae.group_bounds == (0, 6, 14, 24)


def test_the_threshold_starts_at_the_first_batch_and_follows(sae):
    smallest = [batch_topk(sae, sae.pre_activations(tokens(seed=s)), 3) for s in (3, 4)]
    first, second = (codes[codes > 0].min().item() for codes in smallest)
    sae.eval()
    sae.loss(tokens(seed=3))
    assert sae.threshold == 0  # only training moves it
    sae.train()
    sae.loss(tokens(seed=3))
    assert sae.threshold.item() == pytest.approx(first)
    sae.loss(tokens(seed=4))
    assert sae.threshold.item() == pytest.approx(0.95 * first + 0.05 * second)
    assert sae.threshold.dtype == torch.float64 and not sae.threshold.requires_grad


@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), chunk=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_calibration_leaves_exactly_k_codes_a_token(seed, n, chunk):
    """The number of chunks makes no difference."""
    made = MatryoshkaSAE(CONFIG)
    made.initialize(tokens(), generator(seed))
    x = tokens(n, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sae_module, "CHUNK", chunk)
        made.calibrate(x)
    # In the same parts, for products of other shapes may round differently.
    assert sum(int((made.encode(part) > 0).sum()) for part in x.split(chunk)) == CONFIG.k * n
    assert made.threshold > 0 and made.threshold.dtype == torch.float64


def test_calibration_holds_on_other_tokens_and_keeps_all_where_few_are_above_0(sae):
    sae.calibrate(tokens(4000, seed=11))
    l0 = float((sae.encode(tokens(4000, seed=12)) > 0).sum()) / 4000
    assert l0 == pytest.approx(CONFIG.k, rel=0.02)
    with torch.no_grad():
        sae.b_enc.sub_(1.5)
    assert 0 < (sae.pre_activations(tokens()) > 0).sum() < CONFIG.k * 40
    sae.calibrate(tokens())
    assert sae.threshold == 0


def test_initialize(sae):
    torch.testing.assert_close(sae.b_dec, tokens().mean(dim=0))
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(CONFIG.d_sae))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    with torch.no_grad():
        sae.W_enc.add_(1)
    assert not torch.equal(sae.W_enc, sae.W_dec.T)  # no shared storage
    again, other = MatryoshkaSAE(CONFIG), MatryoshkaSAE(CONFIG)
    again.initialize(tokens(), generator(0))
    other.initialize(tokens(), generator(1))
    assert torch.equal(again.W_dec, sae.W_dec) and not torch.equal(other.W_dec, sae.W_dec)


def test_projected_gradients_keep_decoder_rows_at_length_one(sae):
    sae.loss(tokens()).total.backward()
    assert sae.W_dec.grad is not None and (sae.W_dec.grad * sae.W_dec).sum(dim=1).abs().max() > 1e-3
    sae.project_decoder_gradient()
    assert (sae.W_dec.grad * sae.W_dec).sum(dim=1).abs().max() < 1e-6
    with torch.no_grad():
        sae.W_dec.mul_(3)
    sae.unit_norm_decoder()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(CONFIG.d_sae))


def test_tokens_of_another_width_are_refused(sae):
    for call in (sae.encode, sae.pre_activations, sae.loss):
        with pytest.raises(RaigenError, match=r"tokens: expected width 8, .*; got 5"):
            call(torch.zeros(3, 5))


def test_a_saved_autoencoder_comes_back_bit_for_bit(sae, tmp_path):
    sae.loss(tokens())
    paths = sae.save(tmp_path / "sae")
    assert [path.name for path in paths] == ["config.json", "model.safetensors"] and all(p.is_file() for p in paths)
    loaded = MatryoshkaSAE.load(tmp_path / "sae")
    assert loaded.config == CONFIG and not loaded.training
    for name, tensor in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor) and loaded.state_dict()[name].dtype == tensor.dtype
    assert torch.equal(loaded.encode(tokens()), sae.encode(tokens()))


def spoil_config(**changes):
    def spoil(dir):
        config = json.loads((dir / "config.json").read_text())
        (dir / "config.json").write_text(json.dumps(config | changes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda dir: (dir / "config.json").unlink(), "expected a whole autoencoder; it is broken .*config.json"),
        (lambda dir: (dir / "model.safetensors").unlink(), "expected config.json and model.safetensors"),
        (lambda dir: (dir / "config.json").write_text("{"), "it is broken"),
        (lambda dir: (dir / "model.safetensors").write_bytes(b"12345678"), "it is broken"),
        (spoil_config(d_in=9), "it is broken.*W_enc"),
        (spoil_config(width=9), "it is broken.*width"),
        (spoil_config(k=99), "it is broken.*k: expected"),
    ],
)
def test_a_missing_or_broken_autoencoder_is_named(sae, tmp_path, spoil, message):
    dir = tmp_path / "run" / "sae"
    sae.save(dir)
    spoil(dir)
    with pytest.raises(RaigenError, match=rf"(?s)sae: .*{message}.*raigen train \S*run --redo train"):
        MatryoshkaSAE.load(dir)
