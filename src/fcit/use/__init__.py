"""What can be done with a finished run.

`export` writes its model for PEFT or transformers, `serve` answers requests, `why` explains its answers.
"""
