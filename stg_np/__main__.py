"""``python -m stg_np``: the command line."""

import sys

if __name__ == "__main__":
    from stg_np.cli import main

    sys.exit(main())
