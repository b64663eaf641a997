"""Paths that lead out of the image root, or to something that is not a regular file."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

Named = tuple[str, str]


def lay(root: Path, secret: Path) -> None:
    """Puts traps into `root`; `secret` is a file outside."""
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to(secret)
    (root / "relative").symlink_to(os.path.relpath(secret, root))
    (root / "folder-link").symlink_to(secret.parent)
    (root / "slash").symlink_to("/")
    (root / "loop").symlink_to("loop")
    (root / "proc-link").symlink_to("/proc/self/environ")
    (root / "own").symlink_to("good.jpg")
    (root / "folder.jpg").mkdir()
    (root / "empty-folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    listener.close()


def all_paths(root: Path, secret: Path) -> Iterator[Named]:
    name = secret.name
    for path in (
        str(secret),
        f"../{name}",
        f"./../{name}",
        f"x/../../{name}",
        f"folder.jpg/../../{name}",
        f"..//{name}",
        f"..\\{name}",
        f"%2e%2e/{name}",
        f"..%2f{name}",
        f"..%252f{name}",
        f"..\u2215{name}",
        f"\uff0e\uff0e/{name}",  # full-width dots
        f"{root}/../{name}",
        f"{root}/link",
        f"{root}x",
        f"{root}",
        f"{root}/",
        f"//{secret}",
        f"{root}//..//{name}",
        "link",
        "relative",
        f"folder-link/{name}",
        f"slash{secret}",
        "loop",
        "own",
        "proc-link",
        "fifo",
        "socket",
        "folder.jpg",
        "folder.jpg/",
        "empty-folder/.",
        "good.jpg/",
        "good.jpg/.",
        "good.jpg/x",
        "good.jpg\0",
        "good.jpg\0.png",
        "\0",
        "",
        ".",
        "..",
        "/",
        "~",
        "~root/.ssh/id_rsa",
        "$HOME/x",
        "*",
        "good.jp?",
        "GOOD.JPG",
        "good.jpg ",
        "good.jpg\n",
        "a" * 300,
        "a/" * 3000,
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/proc/self/cwd/x",
        "/dev/zero",
        "/dev/stdin",
        "/dev/fd/0",
        "/sys/kernel/notes",
        "file:///etc/passwd",
        "\\\\server\\share",
        "C:\\x",
        "good.jpg:stream",
        "\ud800",
        "\u202egpj.doog",
    ):
        yield ascii(path)[:60], path
