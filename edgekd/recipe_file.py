"""Recipes on disk: reading, ``--set`` overrides, shipped recipes, and errors that name the key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from edgekd.errors import RecipeError, fault, nearest
from edgekd.recipe import Recipe
from edgekd.recipe_stages import DEFAULT_METHODS, STAGE_KINDS, STAGE_NAMES, methods_of
from edgekd.yaml_text import load_yaml

_FLAGS = {"data": "add data: {path: ...} or --data PATH"}
# Keys of one method that mean nothing in another: what to do instead.
_FOREIGN = {
    "substitute": "training has to make up for another activation: set distill.substitute, or take method: qat"
}

# As a value of --set it is meant as it stands, such as data.label_separator=|: YAML reads other things into it.
_PUNCTUATION = re.compile(r"[^\w\s\[{\"'~][^\w\[{\"']*")


def parse_recipe(document: Any, *, where: str) -> Recipe:
    """A parsed YAML document to a :class:`Recipe`; every problem is one line that starts with ``where``."""
    if not isinstance(document, Mapping):
        raise RecipeError(
            fault(where, "not a mapping", got=type(document).__name__, fix="see: edgekd recipes")
        )
    data = dict(document)
    data["stages"] = _tagged_stages(data.get("stages", []), where)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_first_problem(error, where)) from None


def _tagged_stages(stages: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(stages, list):
        raise RecipeError(fault(f"{where}: stages", "not a list", got=type(stages).__name__))
    tagged = []
    for position, entry in enumerate(stages):
        spot = f"{where}: stages[{position}]"
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise RecipeError(fault(spot, "not a mapping of one stage name to its settings", got=entry))
        ((kind, settings),) = entry.items()
        if kind not in STAGE_NAMES:
            raise RecipeError(
                fault(
                    spot,
                    "unknown stage",
                    got=kind,
                    allowed=", ".join(STAGE_NAMES),
                    fix=nearest(str(kind), STAGE_NAMES),
                )
            )
        if not isinstance(settings or {}, Mapping):
            raise RecipeError(fault(f"{spot}.{kind}", "not a mapping", got=settings))
        method, methods = (settings or {}).get("method"), methods_of(kind)
        if method is not None and methods and method not in methods:
            raise RecipeError(
                fault(f"{spot}.{kind}.method", "unknown method", got=method, allowed=", ".join(methods),
                      fix=nearest(str(method), methods))
            )  # fmt: skip
        tagged.append({**(settings or {}), "stage": kind})
    return tagged


def _first_problem(error: ValidationError, where: str) -> str:
    problems = error.errors()
    # An unknown key explains most of what follows it, so it is told first.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = [part for part in problem["loc"] if not isinstance(part, str) or part not in STAGE_KINDS]
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
    spot = f"{where}: {path}" if path else where
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"])
        key = str(problem["loc"][-1])
        if foreign := _other_method(problem["loc"]):
            return fault(spot, foreign, got=key, fix=_FOREIGN.get(key) or nearest(key, known))
        fix = nearest(key, known) if known else None
        homes = [name for name in Recipe.model_fields if key in _known_keys((name, key)) and name != "stages"]
        if homes and fix is not None and fix.startswith("known"):
            fix = f"did you mean {homes[0]}.{key}?"
        return fault(spot, "unknown key", got=key, fix=fix)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("tuple_type", "list_type"):
        message = "must be a list, such as [a, b, c]"
    if problem["type"] == "missing":
        return fault(spot, "is missing", fix=_FLAGS.get(path))
    if problem["type"] == "value_error" and not path:
        return fault(where, message)
    return fault(spot, message, got=problem["input"])


def _other_method(location: tuple[int | str, ...]) -> str | None:
    """Why a key that another method of the same stage takes is refused here."""
    tag = next((part for part in location if isinstance(part, str) and part in STAGE_KINDS), "")
    stage, _, method = tag.partition(":")
    if not method or location[-2] != tag:
        return None
    taking = [
        other for other in methods_of(stage) if location[-1] in STAGE_KINDS[f"{stage}:{other}"].model_fields
    ]
    default = " (the default)" if method == DEFAULT_METHODS.get(stage) else ""
    return f"belongs to method {taking[0]}, not to {method}{default}" if taking else None


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the mapping that holds the last part of ``location``."""
    model: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        if part in STAGE_KINDS and model is Recipe:
            model = STAGE_KINDS[part]
        elif part in model.model_fields and part != "stages":
            model = next((t for t in _models_in(model.model_fields[part].annotation)), None)
        if model is None:
            return []
    return [key for key in model.model_fields if key != "stage"]


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def apply_overrides(document: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """``--set stage.key=value`` (or ``data.path=...``, ``seed=1``) on a parsed recipe; values are YAML.

    A first part that names a stage means the first stage of that kind.
    """
    result: dict[str, Any] = json.loads(json.dumps(document))
    for override in overrides:
        path, separator, text = override.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise RecipeError(
                fault(
                    "--set",
                    "not key=value",
                    got=override,
                    allowed="stage.key=value, such as distill.epochs=3",
                )
            )
        try:
            value = text if _PUNCTUATION.fullmatch(text) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(fault(f"--set {path}", "the value is not YAML", got=text)) from None
        target: Any = result
        if keys[0] in STAGE_NAMES:
            target = next(
                (entry for entry in result.get("stages", []) if isinstance(entry, dict) and keys[0] in entry),
                None,
            )
            if target is None:
                names = [next(iter(entry)) for entry in result.get("stages", []) if isinstance(entry, dict)]
                raise RecipeError(
                    fault(
                        f"--set {path}",
                        f"the recipe has no stage {keys[0]!r}",
                        allowed=", ".join(names) or "none",
                    )
                )
            if target[keys[0]] is None:
                target[keys[0]] = {}
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise RecipeError(fault(f"--set {path}", f"{key!r} is not a mapping", got=target))
        target[keys[-1]] = value
    return result


def read_document(path: Path) -> dict[str, Any]:
    """The YAML mapping in ``path``, parsed safely."""
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            fault(str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error))
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        spot = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(fault(spot, f"not YAML: {getattr(error, 'problem', error)}")) from None
    if not isinstance(document, dict):
        raise RecipeError(fault(str(path), "not a mapping", got=type(document).__name__))
    return document


def find_recipe(source: str | Path) -> Path:
    """The file behind a path or a shipped recipe's name.

    Raises:
        RecipeError: neither; names the shipped ones.
    """
    path, shipped = Path(source), shipped_recipes()
    if path.is_file():
        return path
    if str(source) in shipped:
        return shipped[str(source)]
    fix = nearest(str(source), shipped)
    raise RecipeError(fault(str(source), "no such recipe file, and no shipped recipe of that name", fix=fix))


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe file, or the name of a shipped recipe, with ``--set`` overrides applied.

    Raises:
        RecipeError: not found, not YAML, an unknown key (with the nearest valid one), a value out of range.
    """
    path = find_recipe(source)
    return parse_recipe(apply_overrides(read_document(path), overrides), where=str(path))


def shipped_recipes() -> dict[str, Path]:
    """Name to file of the recipes in the package."""
    folder = Path(str(resources.files("edgekd.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
