"""Engines bring jobs to clients and bring their replies back.

This room holds the engine of this machine (`local`) with its worker processes (`workers`, `process`), the
frames that travel between processes (`wire`), and how a client's node answers a message (`node`).
"""
