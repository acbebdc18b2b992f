"""Worlds outside of torch: exported to ONNX, run by ONNX Runtime, and played on a page from any static server.

    from vqvideo.export import OnnxWorld

    world = OnnxWorld("exported/carracing")  # made by scripts/export.py; torch is not imported
    dream = world.imagine(frames, actions, seed=0)

Exporting is `vqvideo.export.writing.export_world`, which needs torch and onnx.
"""

from vqvideo.export.runner import Dream, DreamState, DreamStep, OnnxWorld, Starts

__all__ = ["Dream", "DreamState", "DreamStep", "OnnxWorld", "Starts"]
