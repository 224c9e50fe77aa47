"""The base model: how it is loaded, how images enter it, how it trains and answers with LoRA subspaces.

Also the frozen encoder that makes identity tokens. Only this room imports transformers.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""The mini model and the mini CLIP that are shipped with the package."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python's garbage collector is off: while torch and transformers are imported and a model is
    loaded, it would look through half a million objects again and again, and find nothing.

    What was made counts as old afterwards. As new it would be looked through twice more, for a tenth of a
    start's time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what somebody froze stays frozen
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
