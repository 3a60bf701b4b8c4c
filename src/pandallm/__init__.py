"""pandallm: from raw text to a scored, released model, with a plan before and honest statistics after."""

__version__ = "0.1.0"
