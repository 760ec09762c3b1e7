"""What annotators did: events, and what they add up to."""
