"""Bytes to events and back, for every HTTP version: no I/O, no clock, no log in here."""
