"""One run from beginning to end, and many: the session, its results, the Python interface, sweeps."""
