"""The benchmark itself: datasets and their scoring rules, settings, the clients' split, the schedule of
stages and rounds, checks of a data folder, and the metrics of a finished run.
"""
