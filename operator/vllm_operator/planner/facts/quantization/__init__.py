"""How a checkpoint's weights are quantised, and what that makes of their bytes."""
