"""An application whose import fails."""

raise RuntimeError("no database")
