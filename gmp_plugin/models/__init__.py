"""fairseq models of the three stages and of GEmo-CLAP."""

from . import am_softmax_classification, gemo_clap, multiscale_label_pretraining, multitask_emotion_gender  # noqa: F401
