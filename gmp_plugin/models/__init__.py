"""fairseq models of the three stages."""

from . import am_softmax_classification, multiscale_label_pretraining, multitask_emotion_gender  # noqa: F401
