"""Mutation testing: change one thing in the source, and see whether anything notices.

    python -m tools.mutate --out benchmarks/results/mutation.md
    python -m tools.mutate --module stg_np/stm.py --functions scan

Every mutant is one edit of the syntax tree (:mod:`tools.mutate.operators` lists the kinds). Everything is imported
once, and every test runs once to learn which lines it runs. Then each mutant has a process of its own, forked from this
one, which puts the edited code into the very function object, so that whoever holds the function runs it. There it
meets first the gradient checker, on the pairs of ``stg_np.checks`` that run its line, and then the tests that run it,
those of its own module (``stg_np/ops/conv.py``: ``tests/ops/test_conv.py``) and the quickest first, until one fails.
Hypothesis draws the same examples every time and shrinks nothing. What survives must be explained in
``tools/equivalent_mutants.py``; the exit status is 1 if something is not, or if an explanation explains nothing. POSIX.

Why not mutmut: it knows nothing of ``.T``, axes, streams and workspaces, which are the errors of this package; and a
pytest process for each of 8,000 mutants takes hours.
"""
