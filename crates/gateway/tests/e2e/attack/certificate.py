"""A certificate that openssl makes."""

import subprocess


def issue(folder):
    """Writes a certificate and its key into the folder, and returns the settings of a server that presents it."""
    key, certificate = folder / "node.key", folder / "node.crt"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *curve, "-subj", "/CN=node", *files], capture_output=True, check=True)
    return {"server": {"tls": {"certificate_file": str(certificate), "key_file": str(key)}}}
