"""N trainings that are stepped together, given task weights."""
