"""Measurements; each file is a program, importable so that its parts can be tested."""
