"""Processes: one that serves, from its settings to its exit code."""
