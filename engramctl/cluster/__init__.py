"""Everything that Ray does: sessions, trials as Tune runs them, scoring."""
