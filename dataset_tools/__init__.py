"""Referring-segmentation datasets: records, formats, expressions, masks, metrics. Never imports torch or backend."""
