"""The base model: how it is loaded, how images enter it, how it trains and answers with LoRA subspaces.

Also the frozen encoder that makes identity tokens. Only this room imports transformers.
"""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""The mini model and the mini CLIP that are shipped with the package."""
