"""How the checkpoints in `fcit/models/checkpoints` were made: two tiny architectures, a generic mixture
of drawings and questions, and a training loop. `python -m tools.mini_models DIR` runs all of it.
"""
