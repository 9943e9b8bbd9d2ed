"""Rendezvous of a job's processes before JAX joins them, which is told of their ends.

JAX waits for all processes inside its library, for minutes, and does not notice that
one has ended meanwhile. Here process 0 listens at the coordinator's address until the
others are connected; JAX uses the same port afterwards. The connections stay until the
heartbeats begin. Nothing here imports JAX, so that a process is connected while it
imports that.
"""

import os
import selectors
import signal
import socket
import threading
import time
from typing import Self

from deeprank_jax.distributed import ends, signals
from deeprank_jax.errors import UserError

_POLL_SECONDS, _RETRY_SECONDS = 0.1, 0.2
# Time for one attempt to connect.
_CONNECT_SECONDS = 2.0
# Time without a word from another process after which this one was itself suspended.
_SUSPENDED_SECONDS = ends.SILENCE_SECONDS / 4
_MAX_LINE = 200


class RendezvousError(UserError):
    """The processes do not belong together, or the address cannot be used."""


class _Peer:
    """Connection to another process; in process 0 one for each of the others."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self.connection = connection
        self.process: int | None = None
        self.last_sign = time.monotonic()
        self.has_joined = False
        self._text = b""

    def read(self) -> list[str] | None:
        """Returns the lines that have come; None once the connection has ended."""
        try:
            received = self.connection.recv(4096)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.last_sign = time.monotonic()
        *lines, self._text = (self._text + received).split(b"\n")
        if not received or len(self._text) > _MAX_LINE:
            return None
        return [line.decode("ascii", "replace") for line in lines]

    def send(self, line: str) -> None:
        """Sends a line; a connection that has ended is noticed by `read`."""
        try:
            self.connection.sendall(f"{line}\n".encode())
        except OSError:
            return


class Rendezvous:
    """Connections of this process to the others, in a thread of its own.

    If one of them ends before all have joined, this process does, too, naming it.
    """

    def __init__(self, address: str, num_processes: int, process_id: int):
        """Creates the rendezvous; `start` connects.

        Args:
          address: Address and port of process 0.
          num_processes: Number of processes.
          process_id: Index of this process.
        """
        host, _, port = address.rpartition(":")
        self._address = host.strip("[]"), int(port)
        self._num, self._process = num_processes, process_id
        self._peers: list[_Peer] = []
        self._selector = selectors.DefaultSelector()
        self._is_complete, self._has_joined = threading.Event(), False
        self._error = ""

    def start(self) -> Self:
        """Starts to listen or to connect."""
        signals.on_said(self._tell)
        thread = threading.Thread(target=self._run, name="rendezvous", daemon=True)
        thread.start()
        return self

    def wait(self, seconds: float) -> None:
        """Waits until all processes are connected.

        Args:
          seconds: Time to wait at most.

        Raises:
          RendezvousError: They are not, or do not belong together.
        """
        if not self._is_complete.wait(seconds):
            missing = set(range(1, self._num)) - {x.process for x in self._peers}
            names = ", ".join(f"process {x}" for x in sorted(missing))
            raise RendezvousError(
                f"{'process 0' if self._process else names} did not appear within "
                f"{seconds:.0f} s."
            )
        if self._error:
            raise RendezvousError(self._error)

    def leave(self) -> None:
        """Ends the connections, as the heartbeats have begun."""
        self._has_joined = True
        for peer in self._peers:
            peer.send("joined")

    def _run(self) -> None:
        try:
            if self._process:
                self._connect()
            else:
                self._listen()
        except OSError as error:
            self._fail(f"{os.strerror(error.errno) if error.errno else error}.")
            return
        before, last_beat = time.monotonic(), 0.0
        while not self._is_done():
            for key, _ in self._selector.select(_POLL_SECONDS):
                self._accept() if key.data is None else self._receive(key.data)
            now = time.monotonic()
            if now - before > _SUSPENDED_SECONDS:  # This process itself was.
                for peer in self._peers:
                    peer.last_sign = now
            before = now
            if now - last_beat > ends.BEAT_SECONDS:
                last_beat = now
                self._beat(now)
        for peer in self._peers:
            peer.connection.close()

    def _is_done(self) -> bool:
        """Returns whether no process needs this one here any longer."""
        if self._error:
            return True
        return self._has_joined and (
            self._process > 0 or all(x.has_joined for x in self._peers)
        )

    def _listen(self) -> None:
        bound = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", "")
        host, _, port = bound.rpartition(":")
        address = host.strip("[]"), int(port or self._address[1])
        both = not host and socket.has_dualstack_ipv6()
        self._listener = socket.create_server(
            address,
            family=socket.AF_INET6 if both or ":" in host else socket.AF_INET,
            dualstack_ipv6=both,
        )
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _connect(self) -> None:
        """Connects to process 0, as often as it takes."""
        while not self._peers:
            try:
                connection = socket.create_connection(self._address, _CONNECT_SECONDS)
            except OSError:
                time.sleep(_RETRY_SECONDS)
                continue
            # On one host a port that nobody listens at can connect to itself.
            if connection.getsockname() == connection.getpeername():
                connection.close()
                continue
            peer = _Peer(connection)
            peer.process = 0
            peer.send(f"deeprank {self._process} {self._num}")
            self._peers.append(peer)
            self._selector.register(connection, selectors.EVENT_READ, peer)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _receive(self, peer: _Peer) -> None:
        """Handles what another process has sent, or that it has ended."""
        lines = peer.read()
        for line in lines or ():
            match line.split():
                case ["deeprank", process, num] if not self._process:
                    self._welcome(peer, process, num)
                case ["all"]:
                    self._is_complete.set()
                case ["end", process, number]:
                    self._follow(int(process), int(number))
                case ["refused", *words]:
                    self._fail(" ".join(words))
                case ["joined"]:
                    peer.has_joined = True
        if lines is None:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            if peer.process is not None and not peer.has_joined:
                peer.has_joined = True  # Not to be waited for.
                self._end(peer.process, "its connection broke")

    def _welcome(self, peer: _Peer, process: str, num: str) -> None:
        """Adds a process; the last one completes the job."""
        members = {0, *(x.process for x in self._peers)}
        if num != str(self._num) or not process.isdigit() or int(process) in members:
            text = (
                f"A process with --process_id={process} and --num_processes={num} "
                f"wants to join process 0, which has --num_processes={self._num}: give "
                "each process the same number and another --process_id."
            )
            for other in (*self._peers, peer):
                other.send(f"refused {text}")
            self._fail(text)
            return
        peer.process = int(process)
        self._peers.append(peer)
        if len(self._peers) == self._num - 1:
            self._selector.unregister(self._listener)
            self._listener.close()  # JAX listens at the same port.
            for other in self._peers:
                other.send("all")
            self._is_complete.set()

    def _beat(self, now: float) -> None:
        """Shows the others that this process lives, and looks whether they do."""
        for peer in self._peers:
            peer.send("alive")
            if now - peer.last_sign > ends.SILENCE_SECONDS and not peer.has_joined:
                self._end(peer.process or 0, ends.not_heard(ends.SILENCE_SECONDS))

    def _tell(self, number: signal.Signals) -> None:
        """Tells the others of a signal that ends this process."""
        for peer in self._peers:
            peer.send(f"end {self._process} {int(number)}")

    def _follow(self, process: int, number: int) -> None:
        """Ends this process because a signal has ended another one."""
        if self._has_joined or signals.received() is not None:
            return  # The heartbeats know, or this process ends anyway.
        for peer in self._peers:
            peer.send(f"end {process} {number}")
        text = ends.by_signal(signal.Signals(number), process, self._num)
        ends.end_process(text, 128 + number)

    def _end(self, process: int, how: str) -> None:
        """Ends this process because another one is gone."""
        if not self._has_joined and signals.received() is None and not self._error:
            ends.end_process(ends.gone(process, self._num, how), 1)

    def _fail(self, text: str) -> None:
        """Lets the main thread raise an error."""
        self._error = text
        self._is_complete.set()
