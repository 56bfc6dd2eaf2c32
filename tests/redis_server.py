"""A real redis-server for tests: its own process, port, socket and directory; and a wire that can go silent.

    with RedisServer() as redis:
        redis.url                     # redis://127.0.0.1:port/0
        redis.kill(); redis.restart() # comes back empty on the same port
        redis.stop(), redis.go_on()   # SIGSTOP, SIGCONT

Where there is none the test is skipped with that reason; under CI, which installs one, it fails.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis

from tests.absence import absent

START_TIME = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        absent("redis-server is not installed")
    return found


class RedisServer:
    """See the module; `options` are those of redis-server."""

    def __init__(self, *options: str, password: str | None = None) -> None:
        self._binary = binary()
        self._options: Sequence[str] = (*options, *(("--requirepass", password) if password else ()))
        self._password = password
        self._directory = tempfile.TemporaryDirectory(prefix="redis-")
        self.directory = Path(self._directory.name)
        self.path = str(self.directory / "socket")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.restart()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def ask(self, *command: Any) -> Any:
        """Return Redis's answer to a command, on a connection of its own."""
        with redis.Redis(unix_socket_path=self.path, password=self._password, socket_timeout=START_TIME) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """End it as a crash does. Idempotent."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self, *options: str) -> None:
        """Start it, where it was before, without what it knew (unless it is told to keep it)."""
        assert self.process is None
        self.process = subprocess.Popen(
            (
                self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path,
                "--dir", str(self.directory), "--save", "", "--daemonize", "no", "--loglevel", "warning",
                *self._options, *options,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_TIME
        while True:
            try:
                assert self.ask("PING")
                return
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError, FileNotFoundError):
                assert self.process.poll() is None, "redis-server has ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)

    def stop(self) -> None:
        """Let it hang."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Wire:
    """A relay before Redis, in the test's own loop, that can go silent while its connections stay open."""

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.connections = 0
        self._upstream = upstream
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._deaf: set[asyncio.StreamWriter] = set()  # those whose client hears nothing more
        self._hearing: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def fall_silent(self) -> None:
        """Relay nothing more: what is sent is swallowed or waits, and nobody is told."""
        self._speaks.clear()

    def deafen(self) -> None:
        """Relay nothing more of what is published, on the connections that are open."""
        self._deaf |= self._hearing

    def speak(self) -> None:
        """Relay again, on new connections; those that were open stay silent for ever."""
        for task in self._tasks:
            task.cancel()
        self._speaks.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, to_redis, writer))
                group.create_task(self._copy(from_redis, writer, writer))
        except* (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            to_redis.close()
            self._tasks.discard(task)
            self._hearing.discard(writer)
            self._deaf.discard(writer)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if b"SUBSCRIBE" in data and writer is not client:
                self._hearing.add(client)
            await self._speaks.wait()
            if client in self._deaf:
                continue
            writer.write(data)
            await writer.drain()
        raise EOFError
