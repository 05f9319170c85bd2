"""Visits HTTPS sites on loopback with Python's ssl. Argument: the one authority that it trusts (PEM).

A line of standard input is a target, `PORT NAME TLSv1.2|TLSv1.3`; a line of standard output what was seen there: the answer, or what failed.
"""
import socket
import ssl
import sys

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def visit(port, name, version):
    context = ssl.create_default_context(cafile=sys.argv[1])
    context.minimum_version = context.maximum_version = VERSIONS[version]
    with socket.create_connection(("127.0.0.1", int(port))) as plain, context.wrap_socket(plain, server_hostname=name) as tls:
        tls.sendall(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        return tls.makefile("r").read()


for line in sys.stdin:
    try:
        seen = visit(*line.split())
    except OSError as failure:
        seen = str(failure)
    print(" ".join(seen.split()), flush=True)
