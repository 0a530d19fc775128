"""The same pairs as the plain layers, faster; ``choose.py`` is the one place where a path is chosen."""
