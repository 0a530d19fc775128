"""``python -m tools.mutate``."""

from tools.mutate.run import main

raise SystemExit(main())
