"""Turns a model into data: tasks, models, forward passes, patches and pictures."""
