"""fairseq tasks. Importing this package registers all tasks, models, criteria and optimisers of the plugin."""

from .. import criterions, models, optim  # noqa: F401
from . import am_softmax_classification, gemo_clap, multiscale_label_pretraining, multitask_emotion_gender  # noqa: F401
