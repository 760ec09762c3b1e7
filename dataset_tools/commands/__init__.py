"""The commands of ``pslg dataset``."""
