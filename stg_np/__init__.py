"""stg_np: the short-term memory network (STG), from scratch in NumPy, on the CPU or (CuPy) on a GPU.

Read in this order: ``stm.py``, ``ops/linear.py``, ``ops/losses.py``, ``models/stack.py``,
``models/stg.py``, ``train.py``.
Importing the package loads NumPy and nothing else outside the standard library.
"""

__version__ = "0.1.0"
