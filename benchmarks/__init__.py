"""The asv suite, and `peers.py`, a script of its own."""
