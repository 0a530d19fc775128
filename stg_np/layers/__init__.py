"""What stands around a cell: norm, directions, and the path that a layer adds to."""
