"""A line between two network namespaces that nobody else is in: packets take DELAY_MS in each direction, and one in LOSE_ONE_IN never arrives.

Kernels have netem for that where it is built; this needs only namespaces and /dev/net/tun, and root. What runs at the ends has real TCP, with
its own timers for what was lost:

    python3 lossy-line.py DELAY_MS LOSE_ONE_IN      prints "ready FD FD": nsenter --net=/proc/PID/fd/FD COMMAND is at one end
                                                    10.118.0.1 and 10.118.0.2 are the ends
It ends with its standard input, and says how many packets it carried and lost.
"""

import collections
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, IFF_UP = 0x8914, 0x8916, 0x891C, 0x1
libc = ctypes.CDLL(None, use_errno=True)


def make_end(address):
    """A namespace of its own and the other side of its only network device."""
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"line", IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, where, mask in ((b"line", address, "255.255.255.0"), (b"lo", "127.0.0.1", "255.0.0.0")):
            for request, value in ((SIOCSIFADDR, where), (SIOCSIFNETMASK, mask)):
                fcntl.ioctl(control, request, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(value)))
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, IFF_UP))
    return tun, os.open("/proc/self/ns/net", os.O_RDONLY)


def carry(ends, delay, lose_one_in):
    """Until standard input ends: [carried, lost]."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    on_the_way = collections.deque()
    seen = dict.fromkeys(ends, 0)
    lost = 0
    while True:
        wait = None if not on_the_way else max(0, on_the_way[0][0] - time.monotonic())
        readable, _, _ = select.select([0, *ends], [], [], wait)
        if 0 in readable and os.read(0, 1) == b"":
            return sum(seen.values()), lost
        for end in ends:
            while end in readable:
                try:
                    packet = os.read(end, 65536)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue
                seen[end] += 1
                if seen[end] % lose_one_in == 0:
                    lost += 1
                else:
                    on_the_way.append((time.monotonic() + delay, other[end], packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, end, packet = on_the_way.popleft()
            os.write(end, packet)


def main():
    (near, near_namespace), (far, far_namespace) = make_end("10.118.0.1"), make_end("10.118.0.2")
    print("ready", near_namespace, far_namespace, flush=True)
    print("carried %d lost %d" % carry((near, far), int(sys.argv[1]) / 1000, int(sys.argv[2])), flush=True)


main()
