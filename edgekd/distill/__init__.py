"""Distillation: objectives (one file each), feature capture, the teacher and the cache of its answers.

Import from the modules; nothing is loaded here.
"""
