"""fairseq tasks. Importing this package registers all tasks, models and criteria of the plugin."""

from .. import criterions, models  # noqa: F401
from . import am_softmax_classification, multiscale_label_pretraining, multitask_emotion_gender  # noqa: F401
