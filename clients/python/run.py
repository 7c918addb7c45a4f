#!/usr/bin/env python3
"""Puts pynsq and ansq through the life of a message, on servers that it starts itself.

    run.py --nsqd 'target/release/sansq nsqd' --nsqlookupd 'target/release/sansq nsqlookupd' [--client ansq]
"""

import argparse
import asyncio
import logging

from life import live
from servers import PATIENCE, running
from with_ansq import Ansq
from with_pynsq import Pynsq

CLIENTS = {"ansq": Ansq, "pynsq": Pynsq}


async def run(client, servers):
    library = await asyncio.wait_for(client.open(servers.nsqd.tcp), PATIENCE)
    await live(library, servers)
    await library.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nsqd", required=True, metavar="CMD", help="command that starts nsqd")
    parser.add_argument("--nsqlookupd", required=True, metavar="CMD", help="command that starts nsqlookupd")
    parser.add_argument("--client", choices=CLIENTS, action="append", help="only this one; repeatable")
    args = parser.parse_args()
    # Both report every lost connection, and here connections are lost on purpose.
    logging.disable(logging.CRITICAL)
    for name in args.client or CLIENTS:
        print(name, flush=True)
        with running(args.nsqd, args.nsqlookupd) as servers:
            asyncio.run(run(CLIENTS[name], servers))


if __name__ == "__main__":
    main()
