"""Label Studio's side: its API, exports, regions and tasks."""
