"""What ``stg-np bench`` measures: speed beside peers, the distance to the machine's limit, and how cost grows.

Everything that is timed runs in a process of its own (:mod:`stg_np.bench.worker`), which the driver
(:mod:`stg_np.bench.remote`) asks in turns. Peers are optional: one that is not installed is left out with a note.
"""
