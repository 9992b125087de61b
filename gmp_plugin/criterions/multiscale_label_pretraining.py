"""Stage 2's criterion: cross-entropy of frame labels at every scale (paper, section 3.2)."""

import math
from dataclasses import dataclass, field
from typing import List, Optional

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics

from ..errors import UserError, exit_with_message


@dataclass
class MultiscaleLabelPretrainingCriterionConfig(FairseqDataclass):
    pred_masked_weight: float = field(default=1.0, metadata={"help": "weight of the masked frames' loss"})
    pred_nomask_weight: float = field(default=0.0, metadata={"help": "weight of the unmasked frames' loss"})
    scale_weights: Optional[List[float]] = field(
        default=None, metadata={"help": "weight of each label set, in the order of task.labels; equal when unset"}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "share of the target spread over all clusters"})
    feature_penalty_weight: float = field(
        default=10.0, metadata={"help": "weight of the mean square of the convolutional features"}
    )


@register_criterion("multiscale_label_pretraining", dataclass=MultiscaleLabelPretrainingCriterionConfig)
class MultiscaleLabelPretrainingCriterion(FairseqCriterion):
    """Loss per frame: sum over scales of weight times cross-entropy, plus the feature penalty.

    As in fairseq's `hubert` criterion, except that every term is divided by its own frames when it
    is logged.
    """

    def __init__(
        self, task, pred_masked_weight, pred_nomask_weight, scale_weights, label_smoothing, feature_penalty_weight
    ):
        super().__init__(task)
        self.label_smoothing = label_smoothing
        self.part_weights = {"masked": pred_masked_weight, "unmasked": pred_nomask_weight}
        self.scales = task.scales
        self.scale_weights = list(scale_weights) if scale_weights else [1.0] * len(self.scales)
        self.feature_penalty_weight = feature_penalty_weight
        with exit_with_message():
            if len(self.scale_weights) != len(self.scales):
                raise UserError(
                    f"criterion.scale_weights has {len(self.scale_weights)} values for {len(self.scales)} label sets"
                )
            for names, weights in (
                ("pred_masked_weight and pred_nomask_weight", self.part_weights.values()),
                ("scale_weights", self.scale_weights),
            ):
                if min(weights) < 0 or max(weights) == 0:
                    raise UserError(
                        f"criterion.{names}: expected no weight below 0, and one above it, or nothing is trained"
                    )

    def forward(self, model, sample, reduce=True):
        """Loss in nats summed over frames and scales, number of frames, and what to log.

        `frame_labels`, `(B, T)` per scale, match the model's frames: they were checked to the frame
        when they were loaded.
        """
        with exit_with_message():
            if model.hubert.mask_prob == 0 and self.part_weights["unmasked"] == 0:
                raise UserError(
                    "model.mask_prob=0 masks no frame, and criterion.pred_nomask_weight=0 leaves out the others: "
                    "nothing is trained; set criterion.pred_nomask_weight=1 for the loss on all frames"
                )
        output = model(**sample["net_input"])
        device = output["x"].device
        smoothing = self.label_smoothing if self.training else 0.0  # validation stays in true units
        loss = torch.zeros((), device=device)
        sample_size = 0
        log = {}
        for part, part_weight in self.part_weights.items():
            if part_weight == 0:
                continue
            chosen = output[part]
            n = int(chosen.sum())
            sample_size += n
            log[f"frames_{part}"] = n
            logits = model.prediction(output["x"][chosen])
            for k, weight, scale_logits, labels in zip(
                self.scales, self.scale_weights, logits, sample["frame_labels"], strict=True
            ):
                target = labels[chosen]
                scale_loss = F.cross_entropy(scale_logits.float(), target, reduction="sum", label_smoothing=smoothing)
                loss = loss + part_weight * weight * scale_loss
                log[f"loss_{part}_{k}"] = scale_loss.item()
                log[f"correct_{part}_{k}"] = int((scale_logits.argmax(-1) == target).sum())
        penalty = output["features_pen"] * sample_size
        loss = loss + self.feature_penalty_weight * penalty
        log |= {
            "loss": loss.item(),
            "features_pen": penalty.item(),
            "ntokens": sample_size,
            "nsentences": sample["id"].numel(),
            "sample_size": sample_size,
        }
        return loss, sample_size, log

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Per frame: `loss` of all terms, `loss_PART_K` and `ppl_PART_K` of a scale, in bits as fairseq
        logs; `accuracy_PART_K` in percent."""

        def total(name):
            return float(sum(log.get(name, 0) for log in logging_outputs))

        n = total("sample_size")
        metrics.log_scalar("loss", total("loss") / max(n, 1) / math.log(2), n, round=4)
        metrics.log_scalar("features_pen", total("features_pen") / max(n, 1), n, round=4)
        for name in [key for key in logging_outputs[0] if key.startswith("loss_")]:
            part_scale = name.removeprefix("loss_")
            frames = total(f"frames_{part_scale.split('_')[0]}")
            metrics.log_scalar(name, total(name) / max(frames, 1) / math.log(2), frames, round=4)
            accuracy = 100 * total(f"correct_{part_scale}") / max(frames, 1)
            metrics.log_scalar(f"accuracy_{part_scale}", accuracy, frames, round=3)
            metrics.log_derived(f"ppl_{part_scale}", lambda meters, key=name: utils.get_perplexity(meters[key].avg, 3))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
