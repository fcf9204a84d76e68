"""proxy.py SOCKET PORT-FILE: a Redis that can go away.

It listens on a free port, which it writes into the file, and passes on to the socket.
SIGSTOP makes it hang, SIGCONT go on.  SIGUSR1 makes it refuse connections and break those that
there are, SIGUSR2 take them again.
"""
import asyncio
import os
import signal
import sys


class Proxy:
    def __init__(self, to):
        self.to, self.server, self.port, self.writers = to, None, 0, set()

    async def copy(self, reader, writer):
        self.writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        self.writers.discard(writer)
        writer.close()

    async def serve(self, reader, writer):
        to_reader, to_writer = await asyncio.open_unix_connection(self.to)
        await asyncio.gather(self.copy(reader, to_writer), self.copy(to_reader, writer))

    async def open(self):
        if self.server is None:
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
            self.port = self.server.sockets[0].getsockname()[1]

    async def close(self):
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in list(self.writers):
            writer.transport.abort()


async def main():
    proxy = Proxy(sys.argv[1])
    loop = asyncio.get_running_loop()
    await proxy.open()
    loop.add_signal_handler(signal.SIGUSR1, lambda: loop.create_task(proxy.close()))
    loop.add_signal_handler(signal.SIGUSR2, lambda: loop.create_task(proxy.open()))
    with open(sys.argv[2] + ".new", "w") as out:
        print(proxy.port, file=out)
    os.rename(sys.argv[2] + ".new", sys.argv[2])
    await asyncio.Event().wait()


asyncio.run(main())
