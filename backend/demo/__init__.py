"""The demo: a real Label Studio with pre-labelled tasks, checked through its own API."""
