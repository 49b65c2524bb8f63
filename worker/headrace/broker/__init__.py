"""All that touches Redis: the keys, the scripts, and one method per transition."""
