"""Named settings, each value with its source. No torch here."""
