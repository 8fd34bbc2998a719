"""The process: memory, random numbers, progress and processor."""
