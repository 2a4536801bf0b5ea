"""Take the measures that budgets.toml has budgets for, and print or write them.

    python -m tests.budgets [calls] [memory] [syscalls] [--write]

Run from the root of the checkout, with each version of Python that the file has tables for.
"""

import argparse

from tests.budgets import ledger, measure


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.budgets", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", nargs="*", help=f"{', '.join(ledger.PROBES)}; all without any")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="make them the budgets of this version of Python")
    how.add_argument("--json", action="store_true", help="measure one kind in this very process, for another one")
    options = parser.parse_args()
    unknown = set(options.kind) - set(ledger.PROBES)
    if unknown or (options.json and len(options.kind) != 1):
        parser.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "--json takes one kind")
    if options.json:
        _, probe = ledger.PROBES[options.kind[0]]
        print(measure.dump(probe()))
        return
    for kind in options.kind or ledger.PROBES:
        taken = ledger.take(kind)
        if options.write:
            ledger.write(kind, taken)
        for entry in taken:
            print(f"{kind}, {entry.name}: {entry.amount:g}")
            if not options.write:
                for part, amount in entry.parts.items():
                    print(f"  {amount:8g} {part}")


if __name__ == "__main__":
    main()
