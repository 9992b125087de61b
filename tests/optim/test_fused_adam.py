import pytest
import torch
from fairseq import utils
from fairseq.optim.adam import FairseqAdam
from omegaconf import OmegaConf

from gmp_plugin.optim.fused_adam import FusedAdam, FusedAdamConfig


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_same_updates_as_fairseqs_adam(weight_decay):
    cfg = OmegaConf.create(
        {
            "adam_betas": "(0.9,0.98)", "adam_eps": 1e-6, "weight_decay": weight_decay, "lr": [0.01],
            "use_old_adam": False, "fp16_adam_stats": False, "tpu": False,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(11)]
    results = []
    for kind in (FairseqAdam, FusedAdam):
        params = [torch.nn.Parameter(p.clone()) for p in start]
        optimizer = kind(cfg, params)
        for step in range(20):
            for i, p in enumerate(params):
                p.grad = torch.sin(p.detach() * (step + 1) + i)
            optimizer.step()
        results.append(params)
    for stock, ours in zip(*results, strict=True):
        # Both in float32; the two put the bias corrections in another order.
        torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


def test_half_precision_trains_a_flat_copy():
    """`common.fp16` on a GPU: fairseq lays all parameters into one, if the optimiser says that it may."""
    cfg = FusedAdamConfig(adam_betas="(0.9,0.98)", weight_decay=0.1, lr=[0.1])
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(11)]
    params = [torch.nn.Parameter(p.clone()) for p in start]
    flat = [torch.nn.Parameter(torch.cat([p.flatten() for p in start]))]
    for some in (params, flat):
        optimizer = FusedAdam(cfg, some)
        assert optimizer.supports_flat_params
        for step in range(5):
            for p in some:
                p.grad = torch.sin(p.detach() * (step + 1))
            optimizer.step()
    torch.testing.assert_close(flat[0], torch.cat([p.flatten() for p in params]))


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_gradients_are_clipped_as_by_fairseq_and_where_they_are(max_norm, monkeypatch):
    """fairseq takes the norm to a GPU that it sees, be the training on the CPU or not."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(7, 5)) for _ in range(3)]
    for p in params[:2]:  # the third has none, as what is frozen
        p.grad = torch.randn(7, 5)
    before = [p.grad.clone() for p in params[:2]]
    expected = utils.clip_grad_norm_(params, max_norm)
    clipped = [p.grad for p in params[:2]]
    for p, grad in zip(params, before, strict=False):
        p.grad = grad
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    norm = FusedAdam(FusedAdamConfig(lr=[0.1]), params).clip_grad_norm(max_norm)
    torch.testing.assert_close([norm, *(p.grad for p in params[:2])], [expected, *clipped])


def test_what_never_had_a_gradient_starts_afresh():
    """Frozen at first, a parameter has none; of several processes and in 16 bits zeros in place of it."""
    cfg = FusedAdamConfig(adam_betas="(0.9,0.98)", weight_decay=0.1, lr=[0.01])
    start = torch.linspace(-1, 1, 7)
    late, alone = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer, reference = FusedAdam(cfg, [late]), torch.optim.AdamW([alone], 0.01, (0.9, 0.98), weight_decay=0.1)
    for _ in range(50):
        late.grad = torch.zeros(7)
        optimizer.step()
    assert late.equal(start)
    for step in range(5):
        for p in (late, alone):
            p.grad = torch.sin(p.detach() * (step + 1)) * (step != 2)  # later, zeros are a gradient
        optimizer.step()
        reference.step()
    torch.testing.assert_close(late, alone)
