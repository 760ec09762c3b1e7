"""Scenes drawn by code, for demos, tests and training: images, true masks and referring expressions."""

from dataset_tools.synthetic.canvas import SceneObject
from dataset_tools.synthetic.expressions import SCENE_CATEGORIES, SceneExpression, expressions
from dataset_tools.synthetic.folder import write
from dataset_tools.synthetic.scenes import Scene, draw_scene
from dataset_tools.synthetic.themes import THEMES

__all__ = [
    "SCENE_CATEGORIES",
    "THEMES",
    "Scene",
    "SceneExpression",
    "SceneObject",
    "draw_scene",
    "expressions",
    "write",
]
