"""The tasks by their names."""

from __future__ import annotations

from throughtime.recipe import Recipe
from throughtime.tasks.base import Task
from throughtime.tasks.language import LanguageTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (LanguageTask,)}


def make_task(recipe: Recipe) -> Task:
    """The task that a recipe names."""
    return TASKS[LanguageTask.name](recipe)
