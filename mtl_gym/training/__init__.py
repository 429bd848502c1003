"""N training runs that advance together, given task weights."""
