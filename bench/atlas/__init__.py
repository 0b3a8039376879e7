"""The acceptance atlas: where a head's drafts are accepted, by depth, rank, position and token class."""
