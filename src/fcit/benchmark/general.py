"""The general questions: 300 held-out ones of the mini model's pretraining mixture.

Asked before and after a run, they show how much of what the base model knew is lost by tuning.
`tools/mini_models` wrote them; no client ever trains on them.
"""

from pathlib import Path

GENERAL = "pretraining-mixture"
"""The dataset's name."""

QUESTIONS = Path(__file__).parent / "questions"
"""A data folder as any other, with a test file only."""

COUNT = 300
