"""The federated loop: the server's rounds, a client's turn, the replies that are accepted, the journal,
the run folder, and the only way to an answer (`evaluate`).
"""
