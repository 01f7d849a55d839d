"""The peers as data: ``peers.yaml``, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from benchmarks.peers.environment import OWN
from edgekd.errors import UserInputError, fault, nearest

FILE = Path(__file__).with_name("peers.yaml")
SCRIPTS = Path(__file__).with_name("peers")


class Peer(BaseModel):
    """One row of every model.

    Attributes:
        script: file in ``scripts`` without its suffix.
        runtime: what runs its file; anything but ONNX Runtime is measured by ``worker``, which runs inside the
            peer's environment.
        pattern: N:M pattern that the file should hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    environment: str
    script: str
    package: str
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    worker: str | None = None
    pattern: str | None = None
    settings: dict[str, Any] = {}


class Catalogue(BaseModel):
    """All peers by name, in the order of the table, and the environments that they name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constraints: list[str]
    environments: dict[str, list[list[str]]]
    peers: dict[str, Peer]
    scripts: Path = SCRIPTS

    @model_validator(mode="after")
    def _all_there(self) -> Catalogue:
        for name, peer in self.peers.items():
            if peer.environment != OWN and peer.environment not in self.environments:
                raise ValueError(f"{name}: no environment {peer.environment!r}")
            for script in (peer.script, peer.worker):
                if script is not None and not (self.scripts / f"{script}.py").is_file():
                    raise ValueError(f"{name}: no script {script}.py")
        return self

    def choose(self, asked: str) -> dict[str, Peer]:
        """``all`` or names with commas between them.

        Raises:
            UserInputError: an unknown name.
        """
        if asked == "all":
            return self.peers
        names = [name.strip() for name in asked.split(",") if name.strip()]
        for name in names:
            if name not in self.peers:
                raise UserInputError(
                    fault("--peers", "no such peer", got=name, fix=nearest(name, self.peers))
                )
        return {name: self.peers[name] for name in names}


def read_catalogue(path: Path = FILE) -> Catalogue:
    """``path``, checked.

    Raises:
        UserInputError: it does not hold what it must.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return Catalogue.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserInputError(fault(f"{path.name}: {where}", str(first["msg"]))) from None
