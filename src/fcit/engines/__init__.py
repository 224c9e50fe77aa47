"""Engines bring jobs to clients and replies back. Here: worker processes of this machine, the frames
that travel between processes, and what a node of a federation answers. Flower's engine is in `flower`.
"""
