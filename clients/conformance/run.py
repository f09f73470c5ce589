#!/usr/bin/env python3
"""Plays the life of a gateway to a client and says where the client goes wrong.

    run.py -- python3 my_client.py --cursor-file {cursor_file}

The command finds ROOMCAST_GATEWAY (http://127.0.0.1:…), ROOMCAST_VIEWER_TOKEN and ROOMCAST_ROOM in its environment, opens that
room and prints each event it delivers as one line of JSON, the CloudEvent itself. {cursor_file} is replaced by a path that
outlives a restart. Standard library only, Python 3.9 or newer. Exit: 0 all rows hold, 1 some do not, 64 wrong use.
"""
import argparse
import asyncio
import sys
import tempfile
import time

import scenarios
import vectors
from gateway import Failed
from stage import Stage

# Longer than any scenario's own limits together, seconds: the last resort against a hang.
SCENARIO_WITHIN = 150.0


def rows():
    """Every scenario by its name."""
    return {**{play.__name__: play for play in scenarios.ALL}, "vectors": vectors.play}


async def judge(name, play, command, turn, browser=False):
    """Plays one scenario. Answers name, verdict, seconds, remark."""
    if browser and name in scenarios.HTTP_ANSWERS:
        return name, "skipped", 0.0, "a browser's WebSocket does not tell HTTP answers"
    async with turn:
        started = time.monotonic()
        verdict, remark = "ok", ""
        with tempfile.TemporaryDirectory(prefix="roomcast-conformance-") as folder:
            async with Stage(command, folder) as stage:
                try:
                    skipped = await asyncio.wait_for(play(stage), SCENARIO_WITHIN)
                    if skipped:
                        verdict, remark = "skipped", skipped
                    if stage.violations():
                        raise Failed("; ".join(sorted(set(stage.violations()))))
                except (Failed, asyncio.TimeoutError) as failed:
                    verdict, remark = "FAILED", str(failed) or "took too long"
                    wire = [f"  on the wire: {violation}" for violation in sorted(set(stage.violations())) if violation not in remark]
                    remark = "\n".join([remark, *wire, *(f"  client said: {line}" for line in stage.errors[-4:])])
        return name, verdict, time.monotonic() - started, remark


async def judge_all(command, names, jobs, browser):
    """Plays the scenarios, `jobs` at a time; the first one alone, because it may have to compile the client."""
    turn = asyncio.Semaphore(jobs)
    plays = rows()
    results = [await judge(names[0], plays[names[0]], command, turn, browser)]
    print_row(plays, *results[0])
    waiting = [judge(name, plays[name], command, turn, browser) for name in names[1:]]
    for next_one in asyncio.as_completed(waiting):
        results.append(await next_one)
        print_row(plays, *results[-1])
    return results


def print_row(plays, name, verdict, seconds, remark):
    """One line of the table, and what went wrong below it."""
    print(f"{verdict:8}{seconds:6.1f} s  {name:16}{plays[name].__doc__.strip()}", flush=True)
    for line in remark.splitlines():
        print(f"{'':18}{line}", flush=True)


def main():
    """Reads the arguments and answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="this scenario (may be repeated)")
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    parser.add_argument("--browser", action="store_true", help="the client stands on a browser's WebSocket, which hides HTTP answers")
    parser.add_argument("--jobs", type=int, default=6, help="scenarios at a time (6)")
    parser.add_argument("command", nargs="*", help="the client, after --")
    options = parser.parse_args()
    plays = rows()
    if options.list:
        for name, play in plays.items():
            print(f"{name:16}{play.__doc__.strip()}")
        return 0
    wrong = [name for name in options.only or [] if name not in plays]
    if wrong or not options.command or options.jobs < 1:
        print(f"no such scenario: {', '.join(wrong)}; --list names them" if wrong else parser.format_usage(), file=sys.stderr)
        return 64
    results = asyncio.run(judge_all(options.command, options.only or list(plays), options.jobs, options.browser))
    count = {word: sum(verdict == word for _, verdict, _, _ in results) for word in ("ok", "FAILED", "skipped")}
    print(f"{count['ok']} ok, {count['FAILED']} failed, {count['skipped']} skipped: {' '.join(options.command)}")
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
