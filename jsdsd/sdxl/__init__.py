"""WHO guides: SDXL, or a folder like it (the toybox) - loaded, checked, asked.  Knows scenes, but no run."""
