"""How likely data is, estimated, with what tells whether the estimate can be trusted."""
