"""The only room that knows transformers: the LMM, its subspaces, and the identity encoder."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""The mini model and the mini CLIP that are shipped with the package."""
