"""Passes a listening Unix socket to a program and keeps it: as a systemd socket unit does, the socket is there before, between and after the program's runs.

    socket-activation.py <path> <name> <program> [words...]

Says `activated <pid>` at every start. The program is started again whenever it ends, until SIGTERM, which ends both.
"""
import os
import signal
import socket
import subprocess
import sys

path, name, *command = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(path)
os.chmod(path, 0o660)
listener.listen(4096)
stopping = False
child = None


def stop(*_):
    global stopping
    stopping = True
    if child is not None:
        child.terminate()


signal.signal(signal.SIGTERM, stop)


def prepare():
    # LISTEN_PID is the pid of the program itself, which only exists from here on (sd_listen_fds(3))
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)


while not stopping:
    # the environment is read after prepare() has run
    child = subprocess.Popen(["/usr/bin/env", *command], preexec_fn=prepare, close_fds=False)
    print(f"activated {child.pid}", flush=True)
    child.wait()
