"""The study of what is learnt."""
