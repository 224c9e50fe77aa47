"""Whole runs: a session trains and evaluates into a run folder, a sweep makes many of them.

`api` is the Python interface (`fcit.run`, `fcit.load`); `results` scores answers into the matrix.
"""
