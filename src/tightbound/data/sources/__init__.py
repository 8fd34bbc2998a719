"""Readers: from names, folders, arrays and tables to examples."""
