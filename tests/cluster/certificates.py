"""Keys and certificates of the cluster, by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

PROXY: Final = "front-proxy-client"


def make(folder: Path, addresses: list[str]) -> None:
    """A CA, the API server's certificate for these addresses, and the key that signs service accounts' tokens.

    With another certificate (`proxy`) it calls API servers that are registered with it, such as one of metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "api.crt").exists():
        return
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    also = ",".join([*(f"IP:{each}" for each in addresses), *(f"DNS:{each}" for each in names)])
    (folder / "extensions").write_text(f"subjectAltName={also}\n")
    _openssl(folder, "genrsa -out sa.key 2048")
    _openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=headrace-test -days 3650")
    _openssl(folder, "req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=kube-apiserver")
    _openssl(folder, f"req -newkey rsa:2048 -nodes -keyout proxy.key -out proxy.csr -subj /CN={PROXY}")
    _openssl(folder, "x509 -req -in proxy.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out proxy.crt")
    _openssl(
        folder,
        "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out api.crt -extfile extensions",
    )


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)
