"""Comparisons: entries × seeds from a list (:mod:`~stg_np.compare.plan`), trained alike, and a report of the spread."""
