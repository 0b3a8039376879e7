"""Speed of light of a round: what each phase must move and compute, and the time that takes at best."""
