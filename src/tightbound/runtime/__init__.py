"""The process that models run in: its memory, its noise, its progress, its processor."""
