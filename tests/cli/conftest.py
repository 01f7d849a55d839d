"""What a refusal must look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def refused(edgekd, tmp_path: Path) -> Callable[..., str]:
    """Run the command and demand exit code 2, one line, and no file that was not there before."""

    def check(*arguments: object, says: tuple[str, ...] = ()) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = edgekd(*arguments)
        assert done.code == 2, (done.code, done.out, done.err)
        assert done.err.count("\n") == 1 and done.err.startswith("edgekd: "), done.err
        assert done.out == ""
        for part in says:
            assert part in done.err, (part, done.err)
        assert sorted(tmp_path.rglob("*")) == before
        return done.err

    return check
