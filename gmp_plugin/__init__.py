"""GMP-ATL speech emotion recognition: a fairseq plugin (`common.user_dir=gmp_plugin`) and a package.

Importing the package registers nothing; fairseq imports `tasks/` and `models/` of a user_dir
itself, and code outside fairseq's command lines imports `gmp_plugin.tasks`.
"""

import logging

__version__ = "0.1.0"

# At its import it asks for tensorboardX, for want of which nothing is missing.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
