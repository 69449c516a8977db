"""A real nginx in front of servers, with the configuration in `deploy/nginx` but for its two files that name places."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from harness import FOLDER, STOP_DEADLINE, die_with_parent, free_port, get, until

SHIPPED = FOLDER.parents[3] / "deploy/nginx"


class Nginx:
    """Takes connections on its own port and hands them to `ports` in turn. `patience`, such as "2s", replaces the time
    for which a connection may be silent."""

    def __init__(self, ports, patience=None):
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert program, "nginx is not installed"
        self.folder = tempfile.TemporaryDirectory(prefix="fanwire-nginx-")
        self.port = free_port()
        folder = pathlib.Path(self.folder.name)
        # Started by root, the workers are of another user, who has to reach what they write.
        folder.chmod(0o711)
        self.configure(folder, ports, patience)
        self.log_file = folder / "log"
        with open(self.log_file, "w") as log:
            self.process = subprocess.Popen(
                [program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

        def answers():
            assert self.process.poll() is None, f"nginx ended at its start:\n{self.log}"
            with contextlib.suppress(OSError):
                return get(f"{self.http}/").status == 404

        until(answers, "nginx answers")

    def configure(self, folder, ports, patience):
        main = (SHIPPED / "nginx.conf").read_text()
        if patience is not None:
            main, replaced = re.subn(r"(proxy_(?:read|send)_timeout) \w+;", rf"\1 {patience};", main)
            assert replaced == 2, main
        # A line for each node, with the parameters that the shipped ones have.
        upstream = (SHIPPED / "upstream.conf").read_text()
        servers = re.findall(r"^ *server .*\n", upstream, re.MULTILINE)
        ours = "".join(re.sub(r"server \S+", f"server 127.0.0.1:{port}", servers[0]) for port in ports)
        (folder / "nginx.conf").write_text(main)
        (folder / "upstream.conf").write_text(upstream.replace("".join(servers), ours))
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(STOP_DEADLINE)
        self.folder.cleanup()

    @property
    def http(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self):
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")
