"""A real proxy in front of servers, with its configuration in `deploy` but for the two files that name places."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile

from harness import FOLDER, START_DEADLINE, STOP_DEADLINE, die_with_parent, free_port, until

DEPLOY = FOLDER.parents[3] / "deploy"


class Front:
    """Takes connections on a port of its own and hands them to `nodes` in turn. `patience`, in seconds, replaces the
    time for which a connection may be silent. `tls`, the files of a certificate and its key, makes it take TLS alone."""

    # The program, its option to check a configuration, its folder in `deploy`, and the files in it that name the place
    # it listens at and the nodes.
    program, to_check, shipped, listen_file, nodes_file = None, None, None, None, None

    def __init__(self, nodes, patience=None, tls=None):
        self.path = shutil.which(self.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert self.path, f"{self.program} is not installed"
        self.created = tempfile.TemporaryDirectory(prefix=f"fanwire-{self.program}-")
        self.folder = pathlib.Path(self.created.name)
        # Started by root, the workers are of another user, who has to reach what they write.
        self.folder.chmod(0o711)
        self.port = free_port()
        for file in (DEPLOY / self.shipped).iterdir():
            self.write(file, nodes, patience, tls)
        self.log_file = self.folder / "log"
        self.secure = "" if tls is None else "s"
        self.start()

    def write(self, file, nodes, patience, tls):
        text = file.read_text()
        if file.name == self.listen_file:
            text = self.listening(text, tls)
        elif file.name == self.nodes_file:
            text = self.naming(text, nodes)
        elif patience is not None:
            timeout = re.compile(r"^( *\w*timeout(?: \w+)?) 75(?=s?;?$)", re.IGNORECASE | re.MULTILINE)
            text, replaced = timeout.subn(rf"\1 {patience}", text)
            assert replaced >= 2, text
        (self.folder / file.name).write_text(text)

    def listening(self, text, tls):
        """The shipped file with this proxy's port: that of plain connections, or what is commented out for TLS."""
        if tls is None:
            return re.sub(r":?\b8080\b", f"127.0.0.1:{self.port}", text)
        text = re.sub(r"^.*\b8080\b.*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^( *)#(?! )", r"\1", text, flags=re.MULTILINE)
        text = re.sub(r":?\b8443\b", f"127.0.0.1:{self.port}", text)
        certificate, key = map(str, tls)
        return re.sub(r"/etc/\S+\.key", key, re.sub(r"/etc/\S+\.(?:crt|pem)", certificate, text))

    def naming(self, text, nodes):
        """The shipped file with a line for each node, with the parameters that the shipped ones have."""
        lines = re.findall(r"^.*fanwire-\d:8000.*\n", text, re.MULTILINE)
        assert len(lines) == 3, text
        return text.replace("".join(lines), "".join(self.line(lines[0], *node) for node in enumerate(nodes, 1)))

    def line(self, line, number, node):
        line = line.replace("fanwire-1:8000", f"127.0.0.1:{node.port}").replace("9000", str(node.internal_port))
        return line.replace("fanwire-1", f"fanwire-{number}")

    def command(self, *arguments):
        """The program with its configuration, in the foreground."""
        raise NotImplementedError

    def check(self):
        """What the program says of its configuration, once it has found it sound."""
        done = subprocess.run(self.command(self.to_check), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self):
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )

        def answers():
            assert self.process.poll() is None, f"{self.program} ended at its start:\n{self.log}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return True

        until(answers, f"{self.program} answers", START_DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(STOP_DEADLINE)
        self.created.cleanup()

    @property
    def http(self):
        return f"http{self.secure}://127.0.0.1:{self.port}"

    @property
    def websocket(self):
        return f"ws{self.secure}://127.0.0.1:{self.port}/connection/websocket"

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")


class Nginx(Front):
    program, to_check = "nginx", "-t"
    shipped, listen_file, nodes_file = "nginx", "listen.conf", "upstream.conf"

    def command(self, *arguments):
        folder = self.folder
        return [self.path, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;", *arguments]


class WithoutWebSocket(Nginx):
    """An nginx that refuses WebSockets, as some networks do."""

    refused = "if ($http_upgrade) { return 403; }\n"

    def listening(self, text, tls):
        return super().listening(text, tls) + self.refused


class WithoutStreams(WithoutWebSocket):
    """One that refuses HTTP streams too, and so leaves Server-Sent Events."""

    refused = WithoutWebSocket.refused + "location = /connection/http_stream { return 403; }\n"


class Haproxy(Front):
    program, to_check = "haproxy", "-c"
    shipped, listen_file, nodes_file = "haproxy", "listen.cfg", "nodes.cfg"

    def command(self, *arguments):
        return [self.path, "-f", self.folder, *arguments]


class ProxyProtocol(Haproxy):
    """HAProxy that tells the nodes of its clients by the PROXY protocol too."""

    def line(self, *node):
        return super().line(*node).replace("\n", " send-proxy-v2\n")


class Apache(Front):
    program, to_check = "apache2", "-t"
    shipped, listen_file, nodes_file = "apache", "listen.conf", "nodes.conf"

    def command(self, *arguments):
        run = f"Define RUN {self.folder}"
        return [self.path, "-d", self.folder, "-f", "httpd.conf", "-C", run, "-D", "FOREGROUND", *arguments]
