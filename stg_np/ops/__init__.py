"""Forward/backward pairs that are not STM: linear maps, activations, normalisation, pooling, losses, views."""
