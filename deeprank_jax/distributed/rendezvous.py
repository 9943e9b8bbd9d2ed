"""Connects a job's processes before JAX does, so that each notices if another ends.

JAX waits for all processes inside its library, for minutes, and does not notice that
one has ended meanwhile. Here process 0 listens at the coordinator's address until the
others are connected; JAX uses the same port afterwards. The connections stay until the
heartbeats begin. Nothing here imports JAX, so that a process is connected while it
imports that. Anybody can connect to the port: only lines of the job's processes count.
"""

import contextlib
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
# Time in which the last lines arrive, before a connection is closed.
_LINGER_SECONDS = 1.0
_MAX_LINE = 500
_MAX_NAMES = 8


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
        if self.process is not None:  # A stranger has to say its number in time.
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
        # Seconds after which process 0 gives up, once they have passed.
        self._limit: float | None = None

    def start(self) -> Self:
        """Starts to listen or to connect."""
        signals.on_announced(self._tell)
        self._thread = threading.Thread(
            target=self._run, name="rendezvous", daemon=True
        )
        self._thread.start()
        return self

    def wait(self, seconds: float) -> None:
        """Waits until all processes are connected.

        Args:
          seconds: Time to wait at most.

        Raises:
          RendezvousError: They are not, or do not belong together.
        """
        if not self._is_complete.wait(seconds):
            if self._process and not self._peers:
                raise RendezvousError(
                    f"process 0 did not appear within {seconds:.0f} s."
                )
            # The thread of process 0 tells all which processes are missing.
            self._limit = None if self._process else seconds
            if not self._is_complete.wait(seconds):
                raise RendezvousError(
                    "process 0 is connected, but the others did not appear within "
                    f"{2 * seconds:.0f} s."
                )
        if self._error:
            self._thread.join(2 * _LINGER_SECONDS)  # The others are told.
            raise RendezvousError(self._error)

    def leave(self) -> None:
        """Ends the connections, as the heartbeats have begun."""
        for peer in self._peers:
            peer.send("joined")
        self._has_joined = True  # The thread may now close the connections.

    def _run(self) -> None:
        try:
            if self._process:
                self._connect()
            else:
                self._listen()
            self._exchange()
        except OSError as error:
            number = error.errno or 0  # Negative where a name has no address.
            text = os.strerror(number) if number > 0 else error.strerror or error
            self._fail(f"{text}.")
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}.")
        with contextlib.suppress(OSError):
            self._close_all()

    def _exchange(self) -> None:
        """Handles the lines of the others until none of them is needed."""
        before, last_beat = time.monotonic(), 0.0
        while not self._is_done():
            for key, _ in self._selector.select(_POLL_SECONDS):
                self._accept() if key.data is None else self._receive(key.data)
            now = time.monotonic()
            if now - before > _SUSPENDED_SECONDS:  # This process itself was.
                for peer in self._connected():
                    peer.last_sign = now
            before = now
            if now - last_beat > ends.BEAT_SECONDS:
                last_beat = now
                self._beat(now)
            if self._limit is not None and not self._is_complete.is_set():
                self._give_up(self._limit)

    def _connected(self) -> list[_Peer]:
        """Returns the ends of all open connections, also those of strangers."""
        keys = self._selector.get_map().values()
        return [key.data for key in keys if key.data is not None]

    def _close(self, peer: _Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()

    def _close_all(self) -> None:
        """Closes all connections once the last lines have arrived.

        To close a connection with unread lines would discard those on their way.
        """
        if None in {key.data for key in self._selector.get_map().values()}:
            self._stop_listening()
        for peer in self._connected():
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_SECONDS
        while (peers := self._connected()) and time.monotonic() < deadline:
            for key, _ in self._selector.select(_POLL_SECONDS):
                if key.data.read() is None:
                    self._close(key.data)
        for peer in peers:
            self._close(peer)
        self._selector.close()

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

    def _stop_listening(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()

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
        """Handles the lines of another process or a stranger, or that it has ended."""
        lines = peer.read()
        try:
            for line in lines or ():
                self._handle(peer, line.split())
        except ValueError:  # Not a line of ours.
            lines = None
        if lines is None:
            self._close(peer)
            if peer.process is not None and not peer.has_joined:
                peer.has_joined = True  # Not to be waited for.
                self._end(peer.process, "its connection broke")

    def _handle(self, peer: _Peer, words: list[str]) -> None:
        """Handles a line.

        Raises:
          ValueError: None of the job's processes sends such a line.
        """
        match words:
            case ["deeprank", process, num] if not self._process and not peer.process:
                self._welcome(peer, int(process), int(num))
            case ["all"] if self._process:
                self._is_complete.set()
            case ["refused", *text] if self._process:
                self._fail(" ".join(text))
            case ["end", process, number] if peer.process is not None:
                self._follow(int(process), int(number))
            case ["joined"] if peer.process is not None:
                peer.has_joined = True
            case ["alive"] if peer.process is not None:
                pass
            case _:
                raise ValueError

    def _welcome(self, peer: _Peer, process: int, num: int) -> None:
        """Adds a process; the last one completes the job."""
        if not 0 < process < num:
            raise ValueError
        if num != self._num or process in {x.process for x in self._peers}:
            text = (
                f"A process with --process_id={process} and --num_processes={num} "
                f"wants to join process 0, which has --num_processes={self._num}: give "
                "each process the same number and another --process_id."
            )
            peer.send(f"refused {text}")
            if not self._is_complete.is_set():
                self._refuse(text)
            return
        peer.process, peer.last_sign = process, time.monotonic()
        self._peers.append(peer)
        if len(self._peers) == self._num - 1:
            self._stop_listening()  # JAX listens at the same port.
            for other in self._peers:
                other.send("all")
            self._is_complete.set()

    def _give_up(self, seconds: float) -> None:
        """Ends the job as processes are missing, and names them to the others."""
        missing = sorted(set(range(1, self._num)) - {x.process for x in self._peers})
        names = ", ".join(f"process {x}" for x in missing[:_MAX_NAMES])
        if len(missing) > _MAX_NAMES:
            names += f" and {len(missing) - _MAX_NAMES} others"
        self._refuse(f"{names} did not appear within {seconds:.0f} s.")

    def _refuse(self, text: str) -> None:
        """Lets process 0 and all that are connected fail with the same sentence."""
        for peer in self._peers:
            peer.send(f"refused {text}")
        self._fail(text)

    def _beat(self, now: float) -> None:
        """Shows the others that this process lives, and looks whether they do."""
        for peer in self._connected():
            if peer.process is None and now - peer.last_sign > ends.SILENCE_SECONDS:
                self._close(peer)  # A stranger.
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
        if not 0 <= process < self._num or number not in signals.SIGNALS:
            raise ValueError
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
