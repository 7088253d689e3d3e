"""The wire format: frames, messages, and what is made of them; see docs/wire-format.md."""
