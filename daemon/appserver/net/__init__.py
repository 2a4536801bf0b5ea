"""Sockets to wire and back: the one protocol class, back-pressure, deadlines, listeners."""
