"""Where captures go: into memory, or onto disk as Zarr v3."""
