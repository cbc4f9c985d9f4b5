"""Chaos: real nodes and real servers that are killed, frozen and cut off, and a checker of what comes of it.

- `servers`: servers that can be killed, frozen and started again with their data; `cluster`, `sentinels`,
  `replicated` and `tls`: several that belong together
- `fleet`: nodes as processes; `faults`: what is done to them, with the times; `load`: the producers
- `journal`: what the tasks' runs write outside Redis; `watcher`: the events; `checker`: compares all of it;
  `times`: how long it took to go on; `histories`: the random tester, at length
- `app`: what the nodes run; `points`: how a node dies at a point; `controls`: safeguards, switched off
- `proxy`: a TCP proxy that loses replies
- `scenario`: one round of all that; `python -m chaos` (`make chaos`), `python -m chaos.soak` (`make soak`)

Times are seconds of CLOCK_MONOTONIC, which all processes of one machine share.
"""
