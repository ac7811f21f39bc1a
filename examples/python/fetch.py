"""Talks to one host over the network, or listens for one caller.

Shows: a Python component and network grants. Without --allow-net or --listen, connecting, sending
and listening end in `access-denied`, and a name cannot even be looked up.

Build it first: examples/build python

    sbx run --allow-net example.com:80 target/examples/fetch.wasm example.com 80
    sbx run --allow-net 127.0.0.1:9000 target/examples/fetch.wasm 127.0.0.1 9000 udp
    sbx run --allow-net example.com:80 target/examples/fetch.wasm example.com 80 lookup
    sbx run --listen 127.0.0.1:8080 target/examples/fetch.wasm listen 127.0.0.1 8080

It speaks WASI's own socket calls, not Python's socket module, to print WASI's own error names.
"""

import ipaddress
import sys

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import instance_network, ip_name_lookup, network, streams, tcp
from wit_world.imports import tcp_create_socket, udp, udp_create_socket

LINE = b"hello from a sandbox\n"


def wait(socket):
    pollable = socket.subscribe()
    pollable.block()


def retry(socket, step):
    """Calls `step` until it no longer answers `would-block`."""
    while True:
        try:
            return step()
        except Err as error:
            if error.value != network.ErrorCode.WOULD_BLOCK:
                raise
        wait(socket)


def lookup(host):
    """The addresses of the name `host`, as WASI's resolver gives them."""
    answers = ip_name_lookup.resolve_addresses(instance_network.instance_network(), host)
    found = []
    while (address := retry(answers, answers.resolve_next_address)) is not None:
        found.append(address)
    return found


def resolve(host):
    """One address. A literal one needs no resolver, so it can be used where lookups are refused."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return lookup(host)[0]
    if literal.version == 4:
        return network.IpAddress_Ipv4(tuple(literal.packed))
    parts = zip(literal.packed[::2], literal.packed[1::2])
    return network.IpAddress_Ipv6(tuple(high << 8 | low for high, low in parts))


def text(address):
    if isinstance(address, network.IpAddress_Ipv4):
        return str(ipaddress.IPv4Address(bytes(address.value)))
    return str(ipaddress.IPv6Address(b"".join(part.to_bytes(2, "big") for part in address.value)))


def with_port(address, port):
    """The family of `address`, and the socket address it makes with `port`."""
    if isinstance(address, network.IpAddress_Ipv4):
        ipv4 = network.Ipv4SocketAddress(port, address.value)
        return network.IpAddressFamily.IPV4, network.IpSocketAddress_Ipv4(ipv4)
    ipv6 = network.Ipv6SocketAddress(port, 0, address.value, 0)
    return network.IpAddressFamily.IPV6, network.IpSocketAddress_Ipv6(ipv6)


def read_line(source):
    line = b""
    while not line.endswith(b"\n"):
        try:
            line += source.blocking_read(4096)
        except Err as error:
            if isinstance(error.value, streams.StreamError_Closed):
                break
            raise
    return line


def over_tcp(address, port):
    family, remote = with_port(address, port)
    socket = tcp_create_socket.create_tcp_socket(family)
    socket.start_connect(instance_network.instance_network(), remote)
    source, sink = retry(socket, socket.finish_connect)
    # The streams are children of the socket and must be gone before it is.
    with socket, source, sink:
        sink.blocking_write_and_flush(LINE)
        socket.shutdown(tcp.ShutdownType.SEND)
        return read_line(source)


def over_udp(address, port):
    family, remote = with_port(address, port)
    zeros = network.IpAddress_Ipv4((0,) * 4)
    if family == network.IpAddressFamily.IPV6:
        zeros = network.IpAddress_Ipv6((0,) * 8)
    _, anywhere = with_port(zeros, 0)
    socket = udp_create_socket.create_udp_socket(family)
    socket.start_bind(instance_network.instance_network(), anywhere)
    retry(socket, socket.finish_bind)
    source, sink = socket.stream(None)
    with socket, source, sink:
        while sink.check_send() == 0:
            wait(sink)
        sink.send([udp.OutgoingDatagram(LINE, remote)])
        while not (datagrams := source.receive(1)):
            wait(source)
        return datagrams[0].data


def listen(address, port):
    """Accepts one connection and sends its first line back."""
    family, local = with_port(address, port)
    socket = tcp_create_socket.create_tcp_socket(family)
    socket.start_bind(instance_network.instance_network(), local)
    retry(socket, socket.finish_bind)
    socket.start_listen()
    retry(socket, socket.finish_listen)
    print(f"listening on {text(address)} port {port}", flush=True)
    connection, source, sink = retry(socket, socket.accept)
    with connection, source, sink:
        line = read_line(source)
        sink.blocking_write_and_flush(line)
        connection.shutdown(tcp.ShutdownType.SEND)
    return line


def run(arguments):
    match arguments:
        case ["listen", host, port]:
            reply = listen(resolve(host), int(port))
        case [host, port] | [host, port, "tcp"]:
            reply = over_tcp(resolve(host), int(port))
        case [host, port, "udp"]:
            reply = over_udp(resolve(host), int(port))
        case [host, _, "lookup"]:
            for address in lookup(host):
                print(text(address))
            return
        case _:
            sys.exit("usage: fetch HOST PORT [tcp|udp|lookup] | fetch listen HOST PORT")
    print(reply.decode(errors="replace"), end="")


class Run(exports.Run):
    def run(self) -> None:
        try:
            run(sys.argv[1:])
        except Err as error:
            code = error.value
            # An enum for the network calls, a stream error for what reads and writes.
            name = code.name.lower().replace("_", "-") if hasattr(code, "name") else type(code).__name__
            print(name)
            sys.exit(1)
