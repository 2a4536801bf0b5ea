"""The benchmark: appserver and its peers side by side, on one machine, in one run. See docs/benchmark.md."""
