"""nginx in front of a daemon, configured by the example that ships with Rockfill, and certificates for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.appliance import ROOT, START_S, ScriptedAppliance, free_port
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.appliance import Appliance

EXAMPLE = ROOT / "packaging" / "examples" / "nginx.conf"
NAME = "code.example.org"

MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/example.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: Path
    key: Path


def certificate(folder: Path, *names: str) -> Certificate:
    """A certificate for `names` that signs itself."""
    made = Certificate(folder / f"{names[0]}.pem", folder / f"{names[0]}.key")
    if shutil.which("openssl") is None:
        not_run("openssl", "it is not installed")
    also = ",".join(f"IP:{name}" if name[0].isdigit() else f"DNS:{name}" for name in names)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={also}"]
    subprocess.run([*command, "-out", made.cert, "-keyout", made.key], check=True, capture_output=True)
    return made


def behind_a_proxy(folder: Path, state_dir: Path, kind: type[Appliance] = ScriptedAppliance) -> Appliance:
    """A daemon with the configuration that the example asks for, not started yet."""
    config = folder / "config.toml"
    config.write_text(f'[server]\nallowed_hosts = ["{NAME}"]\ntrusted_proxies = ["127.0.0.1"]\n')
    return kind(state_dir, ["--config", str(config)])


@contextmanager
def nginx(folder: Path, appliance: Appliance, name: str = NAME) -> Iterator[tuple[int, Certificate]]:
    """The example with other ports and another certificate; gives its port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        not_run("nginx", "it is not installed")
    port = free_port()
    made = certificate(folder, name)
    text = EXAMPLE.read_text()
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server_name code.example.org", f"server_name {name}"),
        ("/etc/ssl/certs/code.example.org.pem", str(made.cert)),
        ("/etc/ssl/private/code.example.org.key", str(made.key)),
        ("http://127.0.0.1:8012/", f"{appliance.url}/"),
    ):
        assert there in text
        text = text.replace(there, here)
    (folder / "example.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    process = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf"])
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
        yield port, made
    finally:
        process.terminate()
        process.wait()
