"""Options as data: of data sets, training and parts. Importing them does not import torch."""
