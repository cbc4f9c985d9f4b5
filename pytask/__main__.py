"""`pytask` and `python -m pytask`: patches where a node will run in this process, then the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pytask.supervision import is_looked_after


def runs_a_node(arguments: Sequence[str]) -> bool:
    """Will these arguments make this very process a node? With several processes it is only their parent."""
    if arguments[:1] == ["orchestrate"]:
        return is_looked_after()
    if arguments[:1] != ["worker"]:
        return False
    processes = "1"
    for index, argument in enumerate(arguments):  # the last one counts, as for the command line itself
        if argument in ("-p", "--processes"):
            processes = "".join(arguments[index + 1 : index + 2])
        elif argument.startswith("--processes="):
            processes = argument.partition("=")[2]
        elif argument.startswith("-p") and argument[2:].isdigit():
            processes = argument[2:]
    return processes == "1"


def main() -> None:
    """Run the command line and exit."""
    if runs_a_node(sys.argv[1:]):
        from gevent import monkey

        monkey.patch_all()
    from pytask.cli import cli

    cli()


if __name__ == "__main__":
    main()
