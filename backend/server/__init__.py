"""Everything that speaks Label Studio's ML protocol."""
