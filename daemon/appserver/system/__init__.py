"""The host: what the service manager hands over, and what it is told."""
