"""Pictures of a memory map: SVG, one HTML page, and characters for a terminal."""
