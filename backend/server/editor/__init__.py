"""What Label Studio's editor sends and takes: labeling configs, prompts, regions."""
