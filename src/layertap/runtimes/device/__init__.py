"""A model on a microcontroller."""
