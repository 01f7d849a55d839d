"""neural-compressor's own folder is not left where the user stands."""

from __future__ import annotations

from pathlib import Path

from edgekd.quant.compressor import tuning_framework


def test_no_folder_appears_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    tuning_framework()
    from neural_compressor.common.base_config import options

    assert Path(options.workspace).is_dir()  # reading it makes it
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
