"""The recipes that ship, and how one is named on a command line."""

from __future__ import annotations

from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"


def found_recipe(recipe: Path) -> Path:
    """The recipe where it is named, or one that ships, by its file name."""
    shipped = RECIPES / recipe.with_suffix(".toml").name
    return recipe if recipe.exists() or not shipped.exists() else shipped
