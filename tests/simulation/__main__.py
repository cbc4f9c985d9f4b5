"""python -m simulation ...: plays seeds, shows one shrunk, compares the fake server with a real one.

Runs in a process of its own, with the same hashes each time, so that a seed is the same world wherever it is
played.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

SHOWN = 3  # kinds of failures that are shrunk and shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("command", choices=("seeds", "show", "control", "compare"))
    parser.add_argument("first", type=int, help="the first seed, or the only one")
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument(
        "--failover", action="store_true", help="with failovers that take writes back, and the sweep"
    )
    parser.add_argument("--without", metavar="SAFEGUARD", help="with this safeguard switched off")
    parser.add_argument(
        "--shrunk", action="store_true", help="show the smallest history that fails in the same way"
    )
    parser.add_argument("--url", default="", help="of a real server, which is emptied")
    options = parser.parse_args()
    return COMMANDS[options.command](options)


def seeds(options: argparse.Namespace) -> int:
    """Play seeds; a failure of each kind is shrunk and shown."""
    from simulation.player import Player, control_named, report

    player = Player(control_named(options.without))
    found = player.find(range(options.first, options.first + options.count), failover=options.failover)
    for kind, failed in found.items():
        print(f"{len(failed)} of {options.count} seeds: {kind}: {failed[:5]}")
    for failed in list(found.values())[:SHOWN]:
        print(report(*player.shrink(player.draw(failed[0], failover=options.failover))), "\n")
    return 1 if found else 0


def show(options: argparse.Namespace) -> int:
    """One seed, with everything that was sent."""
    from simulation.player import Player, control_named, head_of

    player = Player(control_named(options.without))
    scenario = player.draw(options.first, failover=options.failover)
    if options.shrunk:
        scenario, played = player.shrink(scenario)
    else:
        played = player.play(scenario, traced=True)
    print("\n".join([*head_of(scenario, played), "trace:", *played.trace]))
    return 1 if played.kind else 0


def control(options: argparse.Namespace) -> int:
    """Look for a seed that fails in the expected way without the safeguard, and does not with it."""
    from simulation.player import Player, control_named

    off = control_named(options.without)
    assert off is not None
    player, whole = Player(off), Player()
    others: dict[str, int] = {}
    for seed in range(options.first, options.first + options.count):
        scenario = player.draw(seed)
        kind = player.play(scenario).kind
        if kind in off.breaks and whole.play(scenario).kind != kind:
            print(json.dumps({"seed": seed, "kind": kind, "others": others}))
            return 0
        if kind:
            others[kind] = others.get(kind, 0) + 1
    print(json.dumps({"seed": None, "kind": None, "others": others}))
    return 1


def compare(options: argparse.Namespace) -> int:
    """Play seeds on the fake server and on a real one at once: every reply and all contents must agree."""
    from pytask.tasks import sweep
    from simulation.player import Player

    player = Player(url=options.url)
    sweep.LEASE = 10**6  # the real server's time stands almost still
    for seed in range(options.first, options.first + options.count):
        player.play(player.draw(seed))
        player.server.compare_contents()
    print(f"{player.server.compared} replies agree")
    return 0


COMMANDS = {"seeds": seeds, "show": show, "control": control, "compare": compare}

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    from simulation.player import prepare

    prepare()
    raise SystemExit(main())
