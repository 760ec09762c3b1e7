"""Dataset formats, one file each: pure conversions between a folder on disk and canonical records."""
