"""Adam as fairseq's `adam`, by torch's fused kernels on CPU and GPU."""

import ast
from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II


@dataclass
class FusedAdamConfig(FairseqDataclass):
    adam_betas: Any = field(default="(0.9,0.999)", metadata={"help": "betas for Adam"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon for Adam"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay, as AdamW"})
    lr: List[float] = II("optimization.lr")


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FusedAdam(FairseqOptimizer):
    """`torch.optim.AdamW(fused=True)`: the update of fairseq's `adam` (but for where eps is added), one pass over all
    parameters.

    fairseq's own is a Python loop over tensors on a CPU, and needs apex to be fused on a GPU.
    """

    def __init__(self, cfg: FusedAdamConfig, params):
        super().__init__(cfg)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    @property
    def supports_flat_params(self) -> bool:
        """`common.fp16` trains one flat float32 copy; Adam minds no shapes."""
        return True

    def step(self, closure=None, **kwargs) -> None:
        # What is frozen at first has no gradient, by several processes and in 16 bits one of zeros: Adam would count
        # these updates, and make the first ones after them larger than the learning rate.
        for p in self.params:
            if p.grad is not None and p not in self._optimizer.state and not p.grad.any():
                p.grad = None
        super().step(closure, **kwargs)
        # The fused kernels leave no trace in the versions by which `hubert.products.Prepared` knows old weights.
        for p in self.params:
            torch.autograd.graph.increment_version(p)

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn=None) -> torch.Tensor:
        """By torch, all tensors at once: fairseq's loops over them without apex, and where there is a GPU it puts the
        norm there, even in a training on the CPU, which then ends. 0 does not clip."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.params if p.grad is not None])
        norm = norm if aggregate_norm_fn is None else aggregate_norm_fn(norm)
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.params, max_norm, norm)
        return norm

    @property
    def optimizer_config(self) -> dict:
        betas = self.cfg.adam_betas
        return {
            "lr": self.cfg.lr[0],
            "betas": ast.literal_eval(betas) if isinstance(betas, str) else tuple(betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }
