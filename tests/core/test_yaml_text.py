"""YAML from people: a key that stands twice is named with its line; tags that make objects are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgekd.device import load_device
from edgekd.errors import DeviceError, RecipeError
from edgekd.recipe_file import load_recipe
from edgekd.yaml_text import load_yaml


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x:\n  - a: 1\n    a: 2\n", "x: {a: 1, a: 1}\n"])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="the key 'a' stands twice"):
        load_yaml(text)


def test_what_is_no_repetition_is_read() -> None:
    text = "base: &b {a: 1}\nx: {<<: *b, c: 2}\ny: [*b, *b]\n"
    assert load_yaml(text) == {"base": {"a": 1}, "x": {"a": 1, "c": 2}, "y": [{"a": 1}, {"a": 1}]}
    assert load_yaml("") is None


def test_objects_are_not_made() -> None:
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.getcwd []")


def test_device_and_recipe_say_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("name: board\narch: aarch64\nname: other\n")
    with pytest.raises(DeviceError, match=r"b\.yaml: line 3: .*'name' stands twice"):
        load_device(file)
    with pytest.raises(RecipeError, match=r"b\.yaml.*'name' stands twice"):
        load_recipe(str(file))
