"""Every drafting method side by side: the same target, prompts and clock, one table."""
