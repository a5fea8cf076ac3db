"""Runs a program in a terminal of a given size: types KEYS once UNTIL was shown, and prints all that the program wrote.

terminal.py COLUMNS ROWS UNTIL KEYS PROGRAM [ARGUMENT...]

Ends as the program does; with 99 if it leaves the terminal in another state than it found it, 98 if it takes too long.
Standard input, where it is no terminal, is the program's.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

columns, rows, until, keys, *program = sys.argv[1:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))
before = termios.tcgetattr(slave)


def own_the_terminal():
    os.setsid()
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


stdin = slave if os.environ.get("STDIN") == "terminal" else 0
child = subprocess.Popen(program, stdin=stdin, stdout=slave, stderr=slave, preexec_fn=own_the_terminal)
seen, typed, deadline = b"", False, time.monotonic() + 30
while True:
    ended = child.poll() is not None
    ready, _, _ = select.select([master], [], [], 0 if ended else 0.02)
    if ready:
        seen += os.read(master, 1 << 16)
    elif ended:
        break
    if not typed and until.encode() in seen:
        typed = True
        if keys == "SIGTERM":
            child.terminate()
        else:
            os.write(master, keys.encode())
    if time.monotonic() > deadline:
        child.kill()
        sys.stdout.buffer.write(seen)
        sys.exit(98)
sys.stdout.buffer.write(seen)
sys.stdout.flush()
sys.exit(child.returncode if termios.tcgetattr(slave) == before else 99)
