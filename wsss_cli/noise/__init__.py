"""Training on pseudo masks whose labels are partly wrong or missing."""
