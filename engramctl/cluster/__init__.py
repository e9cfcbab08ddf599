"""Everything that runs on Ray: sessions, training trials, timing them, scoring models."""
