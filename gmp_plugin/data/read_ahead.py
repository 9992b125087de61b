"""fairseq's thread that reads batches ahead, and the end of the process."""

import atexit
import math
import threading

from fairseq.data.iterators import BackgroundConsumer

PATIENCE_S = 30  # for the batch that is being read


def stop_at_exit() -> None:
    """Let no reader outlive the interpreter.

    The thread is a daemon: where it is inside torch when the interpreter ends, be it after an error or at the last
    update in the middle of an epoch, the process aborts ("terminate called without an active exception").
    """
    atexit.register(_stop)


def _stop() -> None:
    readers = [thread for thread in threading.enumerate() if isinstance(thread, BackgroundConsumer)]
    for reader in readers:
        reader._max_len = 0  # the batch at hand is the last
        with reader._queue.mutex:  # and finds room
            reader._queue.maxsize = math.inf
            reader._queue.not_full.notify_all()
    for reader in readers:
        reader.join(PATIENCE_S)
