"""A child that breaks the link's rules: ``rogue.py MODE FD``."""

from __future__ import annotations

import os
import socket
import sys
import time

HELLO = b'{"type":"hello","version":1,"pid":1}\n'


def main(mode: str, fd: int) -> None:
    link = socket.socket(fileno=fd)
    match mode:
        case "garbage":
            link.sendall(HELLO + b"\x00\xff not JSON\n")
        case "unknown":
            link.sendall(HELLO + b'{"type":"surprise"}\n')
        case "malformed":
            link.sendall(HELLO + b'{"type":"token","id":"one","text":3}\n')
        case "endless":
            link.sendall(HELLO)
            while True:
                link.sendall(b"x" * 65536)
        case "half":
            link.sendall(HELLO + b'{"type":"loa')
            sys.exit(0)
        case "version":
            link.sendall(b'{"type":"hello","version":99,"pid":1}\n')
        case "127":
            sys.exit(127)
        case "last words":
            print("E rkllm: the last words", flush=True)
            sys.exit(9)
        case "deaf":  # closes the link and lives on
            link.sendall(HELLO)
            link.close()
            os.close(1)
        case "silent":
            pass
        case _:
            raise ValueError(mode)
    time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
