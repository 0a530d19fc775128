"""``python -m stg_np``: the command line."""

import sys

from stg_np.cli import main

if __name__ == "__main__":
    sys.exit(main())
