"""Engines bring jobs to clients and bring their replies back.

This room holds the worker processes of this machine (`local`, `process`), the frames that travel between
processes (`wire`), and how a client's node answers a message (`node`). Flower's engine is in `flower`.
"""
