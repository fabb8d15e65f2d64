"""The folder in which a test puts the files that deploy/ expects under /etc, /opt and /var."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

import dream
from dream.stack.ports import choose
from tests.gateway import SECRET
from tests.processes import MARK

__all__ = ["DEPLOY", "ROOT", "Place"]

ROOT = Path(dream.__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


class Place:
    """A folder of a test in place of /etc, /opt and /var, for the files of `deploy/`."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.mark = folder.name + folder.parent.name
        self.port = choose()
        self.env_file = folder / "dream.env"
        self.settings = {**environment, "DREAM_JWT_SECRET": SECRET, "DREAM_PORT": str(self.port)}
        self.settings["DREAM_TRUSTED_PROXIES"] = "127.0.0.1"
        self.env_file.write_text("".join(f'{name}="{value}"\n' for name, value in self.settings.items()))
        self.environment = {"PATH": os.environ["PATH"], MARK: self.mark}

    def filled_in(self, text: str) -> str:
        for name, path in {
            "/opt/dream/.venv/bin/": f"{Path(sys.executable).parent}/",
            "/opt/dream/": f"{ROOT}/",
            "/etc/dream/dream.env": str(self.env_file),
            "/var/lib/dream": str(self.folder),
            "/var/log/dream": str(self.folder),
            "user=dream": f"user={getpass.getuser()}",
        }.items():
            text = text.replace(name, path)
        return text
