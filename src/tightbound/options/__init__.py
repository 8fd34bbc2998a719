"""Options that are data: what a user can say of data, of training and of parts. Importing them costs no torch."""
