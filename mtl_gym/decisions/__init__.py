"""Decisions: one class for each kind of decision, composed with the trainings it acts on."""
