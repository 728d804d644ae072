"""A real sshd on this machine, for one user with a key of its own, behind a proxy that can break connections."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

INSTALL = "apt-get install openssh-server openssh-client"
SERVER = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


class Proxy:
    """Hands connections on to a port; the ones in `broken` (counted from 0) only so many bytes of the client's."""

    def __init__(self, port):
        self._behind, self.broken, self.count = port, {}, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                room, self.count = self.broken.get(self.count), self.count + 1
                for source, sink, limit in ((client, server, room), (server, client, None)):
                    threading.Thread(target=self._hand_on, args=(source, sink, limit, (client, server)), daemon=True).start()

    def _hand_on(self, source, sink, limit, both):
        passed = 0
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                passed += len(content)
                if limit is not None and passed > limit:
                    break
                sink.sendall(content)
        for one in both:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listening.close()


@contextlib.contextmanager
def sshd(folder, environment):
    """Its port, and the client's command that gets in; what it runs sees `environment`. Skips aloud where there is no sshd."""
    if SERVER is None or shutil.which("ssh") is None:
        pytest.skip(f"no sshd here: {INSTALL}")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "keys").write_text((folder / "user.pub").read_text())
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "AuthorizedKeysFile": folder / "keys",
        "StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PasswordAuthentication": "no",
        "SetEnv": " ".join(f'{name}="{value}"' for name, value in environment.items()),
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    # It separates its privileges into a folder that Debian's service makes when it starts.
    subprocess.run(["mkdir", "-p", "/run/sshd"], check=False)
    process = subprocess.Popen([SERVER, "-D", "-e", "-f", folder / "config"], stderr=(folder / "log").open("w"))
    try:
        _await(process, port, folder / "log")
        yield (
            port,
            f"ssh -F none -i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known -o LogLevel=ERROR",
        )
    finally:
        process.terminate()
        process.wait()


def _await(process, port, log):
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip().splitlines()[-1:]}")
        time.sleep(0.05)
    raise AssertionError(log.read_text())
