"""fairseq optimisers."""

from . import fused_adam  # noqa: F401
