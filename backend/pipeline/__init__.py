"""PSLG-SAM, readable top to bottom: coarse localization, foreground point, mask, boundary. Knows no HTTP."""
