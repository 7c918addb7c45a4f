"""An nsqlookupd and an nsqd as child processes, on free ports and in a folder of their own."""

import contextlib
import json
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

PATIENCE = 30.0  # seconds for anything a server does; far more than it needs


class Server:
    """One program, which can be stopped and started again on the same ports."""

    def __init__(self, command, name, flags):
        self.command, self.name, self.flags = shlex.split(command), name, flags
        self.tcp, self.http = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.log = []
        self.process = None

    def start(self):
        addresses = [f"--tcp-address={self.tcp}", f"--http-address={self.http}"]
        self.process = subprocess.Popen(
            [*self.command, *addresses, *self.flags], stderr=subprocess.PIPE, text=True, errors="replace"
        )
        listens = threading.Event()
        threading.Thread(target=self._read_log, args=(self.process.stderr, listens), daemon=True).start()
        if not listens.wait(PATIENCE) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(f"{self.name} does not listen\n{self.shown_log()}")

    def stop(self):
        """Asks it to end, and sees that it does so properly."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        assert status == 0, f"{self.name} ended with {status}\n{self.shown_log()}"

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def shown_log(self):
        return "\n".join(self.log[-60:])

    def _read_log(self, stream, listens):
        missing = {f"TCP: listening on {self.tcp}", f"HTTP: listening on {self.http}"}
        for line in stream:
            self.log.append(line.rstrip())
            missing = {text for text in missing if text not in line}
            if not missing:
                listens.set()
        listens.set()  # it has ended; whoever waits looks


class Servers:
    """nsqlookupd and an nsqd that registers with it."""

    def __init__(self, nsqd, nsqlookupd, folder):
        self.nsqlookupd = Server(nsqlookupd, "nsqlookupd", ["--broadcast-address=127.0.0.1"])
        flags = ["--broadcast-address=127.0.0.1", f"--lookupd-tcp-address={self.nsqlookupd.tcp}", f"--data-path={folder}"]
        self.nsqd = Server(nsqd, "nsqd", flags)

    def start(self):
        self.nsqlookupd.start()
        self.nsqd.start()

    def restart(self):
        self.nsqd.stop()
        self.nsqlookupd.stop()
        self.start()

    def wait_for_stats(self, topic, channel, **expected):
        """Waits until the channel's figures are these. What a client sends without an answer shows nowhere else."""
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = self._stats(topic, channel)
            if seen is not None and all(seen[key] == value for key, value in expected.items()):
                return
            assert time.monotonic() < deadline, f"{topic}/{channel}: expected {expected}, got {seen}"
            time.sleep(0.02)

    def _stats(self, topic, channel):
        topics = self.nsqd.get(f"/stats?format=json&topic={topic}")["topics"]
        channels = [c for t in topics for c in t["channels"] if c["channel_name"] == channel]
        return channels[0] if channels else None


@contextlib.contextmanager
def running(nsqd, nsqlookupd):
    """Both servers, gone at the end whatever happens; their logs are shown if something went wrong."""
    with tempfile.TemporaryDirectory(prefix="nsq-clients-") as folder:
        servers = Servers(nsqd, nsqlookupd, folder)
        try:
            servers.start()
            yield servers
            servers.nsqd.stop()
            servers.nsqlookupd.stop()
        except BaseException:
            for server in (servers.nsqlookupd, servers.nsqd):
                print(f"-- {server.name}'s last lines\n{server.shown_log()}", flush=True)
            raise
        finally:
            servers.nsqd.kill()
            servers.nsqlookupd.kill()


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
