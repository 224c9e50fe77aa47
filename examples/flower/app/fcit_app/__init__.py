"""fcit as a Flower app: its code is the fcit that is installed on the server and on every node."""

from fcit.runs.flower_app import client, server

__all__ = ["client", "server"]
