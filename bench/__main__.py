"""Run the micro-benchmarks and the small race, and print both tables."""

from __future__ import annotations

import argparse

from bench import micro, race


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=500, help="clients in the race (default: 500)")
    parser.add_argument("--messages", type=int, default=400, help="publications per measurement (default: 400)")
    parser.add_argument("--rate", type=float, default=1000, help="publications a second, open loop (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the medians are printed (default: 3)")
    options = parser.parse_args()
    micro.run()
    race.run(options.subscribers, options.messages, options.rate, options.rounds)


if __name__ == "__main__":
    main()
